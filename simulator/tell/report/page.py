"""The frame that all pages share, and what goes into it: templates, styles, scripts, data."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

ASSETS = "assets"


def render(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template: a file of `assets` that extends `frame.html`.
        values: what it shows; texts are escaped.
    """
    return _environment().get_template(template).render(**values)


def asset(name: str) -> Markup:
    """Return a style or a script of ours, to stand in a page as it is."""
    return Markup((files(__package__) / ASSETS / name).read_text(encoding="utf-8"))


@cache
def plotly() -> Markup:
    """Return the library that draws, as a script: nearly five megabytes."""
    return Markup(get_plotlyjs())


def data(value: Any) -> Markup:
    """Return plain data as JSON that stands between script tags and cannot end them.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"asset": asset, "plotly": plotly, "data": data}
    return environment
