"""Rows of a table apart by the words in it: chip, library, version, format.

The public tables name machines by chip and form factor (`h200_sxm`), a chip preset by the chip.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.rows import NO_MODEL, Setting, Unpriced
from hwmodels.arrays import Floats, Mask
from hwmodels.chip import CHIPS
from hwmodels.errors import CalibrationError, listed

Columns = dict[str, npt.NDArray[Any]]
"""Of a table by name, (rows,) each."""

WHERE = ("system", "framework", "fw_version")
"""Columns that say the setting in AIConfigurator's tables."""

UNITS_S = {"_ms": 1e-3, "_us": 1e-6}
"""Seconds by how the name of a column of times ends."""


class Part(NamedTuple):
    """Rows that agree in some words.

    Attributes:
        words: what they agree in, by column.
        columns: all of the table; numbers float64, for those of a table are too narrow to be
            multiplied.
        source: of the table, for errors.
    """

    words: dict[str, str]
    columns: Columns
    source: str

    def setting(self) -> Setting:
        """Return the setting that the words of `WHERE` say.

        Raises:
            CalibrationError: no preset of that chip.
        """
        _, library, version = (self.words[name] for name in WHERE)
        return Setting(self.chip(), library, version)

    def chip(self) -> str:
        """Return the preset of the chip of its system, such as `h200` of `h200_sxm`.

        Raises:
            CalibrationError: there is none.
        """
        system = self.words["system"]
        chip = system.removesuffix("_sxm")
        if chip not in CHIPS.names():
            known = listed(CHIPS.names())
            raise CalibrationError(
                f"{self.source}: system {system!r}: no chip preset for it ({known})"
            )
        return chip

    def take(self, chosen: Mask) -> "Part":
        """Return the rows that a mask (rows,) chooses."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return self._replace(columns=columns)

    def unpriced(self, why: str = NO_MODEL) -> Unpriced:
        """Return its rows as some that have no price; `words` that are no setting say of what.

        Raises:
            CalibrationError: no preset of that chip.
        """
        what = " ".join(word for name, word in self.words.items() if name not in WHERE)
        return Unpriced(self.setting(), what, len(self.columns["system"]), why)

    def sizes(self, *names: str, least: float = 1.0) -> tuple[Floats, ...]:
        """Return (rows,) columns of numbers of at least `least`.

        Raises:
            CalibrationError: one is less, or none.
        """
        return tuple(self._numbers(name, least, f"must be at least {least:g}") for name in names)

    def seconds(self, name: str = "latency_ms") -> Floats:
        """Return (rows,) seconds of a column of milliseconds, `_ms`, or microseconds, `_us`.

        Raises:
            CalibrationError: a row has no time.
        """
        least_s = np.finfo(np.float64).tiny
        return self._numbers(name, least_s, "must be a time above 0") * UNITS_S[name[-3:]]

    def _numbers(self, name: str, least: float, rule: str) -> Floats:
        numbers = self.columns[name]
        wrong = [x for x in numbers.tolist() if not isinstance(x, float) or not least <= x < np.inf]
        if wrong:
            raise CalibrationError(f"{self.source}: {name}: {rule}, got {wrong[0]}")
        return np.asarray(numbers)


def parts(columns: Columns, words: Sequence[str], source: str) -> Iterator[Part]:
    """Yield the rows that agree in the columns `words`, in the order of their values."""
    places: dict[tuple[str, ...], list[int]] = {}
    texts = (columns[word].astype(str).tolist() for word in words)
    for row, key in enumerate(zip(*texts, strict=True)):
        places.setdefault(key, []).append(row)
    wide = {name: _as_numbers(column) for name, column in columns.items()}
    for key in sorted(places):
        chosen = {name: column[places[key]] for name, column in wide.items()}
        yield Part(dict(zip(words, key, strict=True)), chosen, source)


def _as_numbers(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a column as float64 if it holds numbers; one that is missing is NaN then."""
    if column.dtype.kind == "U":
        return column
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError):
        return column
