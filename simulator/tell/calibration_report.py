"""A calibration as one page: measured against priced, what is left over, rooflines, constants.

The page is one HTML file with its pictures in it, so that it opens anywhere and can be kept.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from simulator.tell.calibration_family import FamilyReport
from simulator.tell.calibration_figure import draw_family
from simulator.tell.exhibits import Column, Table
from simulator.tell.report.page import render
from simulator.tell.report.tables import shown_table


def write_report(families: Sequence[FamilyReport], title: str, folder: Path) -> list[Path]:
    """Write `report.html` and a PNG of each family to a folder; return the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {_file_name(family): _png(draw_family(family)) for family in families}
    for name, png in pictures.items():
        (folder / name).write_bytes(png)
    sections = [_section(*each) for each in zip(families, pictures.values(), strict=True)]
    page = folder / "report.html"
    text = render(
        "calibration.html",
        title=title,
        summary=shown_table(_summary(families)),
        families=sections,
    )
    page.write_text(text, encoding="utf-8")
    return [page, *(folder / name for name in pictures)]


def _file_name(family: FamilyReport) -> str:
    return "-".join(family.title.replace(":", " ").split()) + ".png"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _summary(families: Iterable[FamilyReport]) -> Table:
    numbers = (("rows", ""), ("median", "share"), ("P90", "share"), ("bias", "share"))
    rows = tuple(
        (family.title, name, len(family.size), median, p90, bias)
        for family in families
        for name, median, p90, bias in family.errors
    )
    columns = (Column("family"), Column("prices"), *(Column(*each) for each in numbers))
    return Table("", columns, rows)


def _section(family: FamilyReport, png: bytes) -> dict[str, Any]:
    """Return what the page shows of a family: constants that rows do not tell are set apart."""
    constants = Table(
        "",
        (Column("constant"), Column("value"), Column("how it is known")),
        tuple((each.name, each.value, each.source) for each in family.constants),
        doubted=frozenset(n for n, each in enumerate(family.constants) if not each.told),
    )
    return {
        "title": family.title,
        "source": family.source,
        "picture": base64.b64encode(png).decode(),
        "constants": shown_table(constants),
    }
