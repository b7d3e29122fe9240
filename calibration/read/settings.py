"""Rows of a table apart by the words in it: chip, library, version, format.

The public tables name machines by chip and form factor (`h200_sxm`), a chip preset by the chip.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from calibration.rows import Setting
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS
from hwmodels.errors import CalibrationError, listed

MS = 1e-3
US = 1e-6


class Part(NamedTuple):
    """Rows that agree in some words.

    Attributes:
        words: what they agree in, by column.
        numbers: (rows,) columns, float64: those of the table are too narrow to be multiplied.
    """

    words: dict[str, str]
    numbers: dict[str, Floats]

    def setting(self, source: str) -> Setting:
        """Return the setting that columns `system`, `framework` and `fw_version` say.

        Raises:
            CalibrationError: no preset of that chip.
        """
        chip = chip_of(self.words["system"], source)
        return Setting(chip, self.words["framework"], self.words["fw_version"])


def chip_of(system: str, source: str) -> str:
    """Return the preset of the chip of a system, such as `h200` of `h200_sxm`.

    Raises:
        CalibrationError: there is none.
    """
    chip = system.removesuffix("_sxm")
    if chip not in CHIPS.names():
        known = listed(CHIPS.names())
        raise CalibrationError(f"{source}: system {system!r}: no chip preset for it ({known})")
    return chip


def parts(columns: dict[str, npt.NDArray[Any]], words: tuple[str, ...]) -> Iterator[Part]:
    """Yield the rows that agree in the columns `words`, in the order of their values."""
    texts = {word: columns[word].astype(str) for word in words}
    together = np.stack(list(texts.values()), axis=1)
    values, place = np.unique(together, axis=0, return_inverse=True)
    numbers = {
        name: np.asarray(column, np.float64)
        for name, column in columns.items()
        if np.issubdtype(column.dtype, np.number)
    }
    for number, row in enumerate(values):
        chosen = place.ravel() == number
        yield Part(
            dict(zip(words, map(str, row), strict=True)),
            {name: column[chosen] for name, column in numbers.items()},
        )


def seconds(latency: Floats, unit_s: float, source: str) -> Floats:
    """Return times in seconds.

    Raises:
        CalibrationError: one of them is no time.
    """
    if not (np.isfinite(latency) & (latency > 0)).all():
        worst = latency[~(np.isfinite(latency) & (latency > 0))][0]
        raise CalibrationError(f"{source}: latency: must be a time above 0, got {worst:g}")
    return latency * unit_s
