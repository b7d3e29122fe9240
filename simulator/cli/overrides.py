"""What `--set` takes: one value of a document."""

from typing import Any

from hwmodels.errors import SpecError, shown
from hwmodels.spec import read_toml


def parse_override(text: str) -> tuple[str, Any]:
    """Read `path.to.key=VALUE`; VALUE is TOML, a bare word is a string.

    Raises:
        SpecError: there is no `=`.
    """
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise SpecError(f"--set {shown(text)}: expected KEY=VALUE, such as cluster.fabric.planes=4")
    try:
        return path.strip(), read_toml(f"value = {value}")["value"]
    except SpecError:
        return path.strip(), value.strip()
