"""A calibration as one page: measured against priced, what is left over, rooflines, constants.

The page is one HTML file with its pictures in it, so that it opens anywhere and can be kept.
"""

import base64
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from simulator.tell.calibration_family import FamilyReport
from simulator.tell.calibration_figure import draw_family

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; }}
table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem; }}
th, td {{ padding: 0.15rem 0.8rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; }}
.untold {{ color: #a33; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def write_report(families: Sequence[FamilyReport], title: str, folder: Path) -> list[Path]:
    """Write `report.html` and a PNG of each family to a folder; return the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {_file_name(family): _png(draw_family(family)) for family in families}
    for name, png in pictures.items():
        (folder / name).write_bytes(png)
    parts = [_summary(families)]
    for family, png in zip(families, pictures.values(), strict=True):
        parts += _section(family, png)
    page = folder / "report.html"
    page.write_text(_PAGE.format(title=escape(title), body="\n".join(parts)), encoding="utf-8")
    return [page, *(folder / name for name in pictures)]


def _file_name(family: FamilyReport) -> str:
    return "-".join(family.title.replace(":", " ").split()) + ".png"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _summary(families: Iterable[FamilyReport]) -> str:
    rows = [
        (family.title, name, len(family.size), f"{median:.1%}", f"{p90:.1%}", f"{bias:+.1%}")
        for family in families
        for name, median, p90, bias in family.errors
    ]
    return _table(("family", "prices", "rows", "median", "P90", "bias"), rows)


def _section(family: FamilyReport, png: bytes) -> Iterator[str]:
    yield f"<h2>{escape(family.title)}</h2>\n<p>{escape(family.source)}</p>"
    picture = base64.b64encode(png).decode()
    yield f'<img alt="{escape(family.title)}" src="data:image/png;base64,{picture}">'
    rows = [(each.name, each.value, each.source) for each in family.constants]
    untold = {number for number, each in enumerate(family.constants) if not each.told}
    yield _table(("constant", "value", "how it is known"), rows, untold)


def _table(
    head: Sequence[str], rows: Iterable[Sequence[object]], untold: Collection[int] = ()
) -> str:
    """Return rows as a table, those whose values say little set apart."""
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = [f"<tr>{cells}</tr>"]
    for number, row in enumerate(rows):
        style = ' class="untold"' if number in untold else ""
        cells = "".join(f"<td>{escape(str(value))}</td>" for value in row)
        lines.append(f"<tr{style}>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"
