"""Timed kernels as columns: what every reader gives, every fit takes and every score is of.

Rows of one set are one family of kernels in one setting, so that one cost function with one set of
constants prices them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints
from hwmodels.chip import ChipSpec
from hwmodels.costs import Parameters, kernel_time_s

FOLDS = 5
"""Parts that sites are dealt into; each is priced by a fit without it."""


class Setting(NamedTuple):
    """Where kernels ran: the preset name of the chip, and the library that they are of."""

    chip: str
    library: str
    version: str

    def __str__(self) -> str:
        return f"{self.library} {self.version} on {self.chip}"

    def counts(self, chip: str | None, library: str | None, version: str | None = None) -> bool:
        """Return whether it is what was asked for; None asks for nothing."""
        asked = zip((chip, library, version), self, strict=True)
        return all(name in (None, own) for name, own in asked)


NO_MODEL = "no cost model prices them"


class Unpriced(NamedTuple):
    """Rows of a table that no cost model prices.

    Attributes:
        what: was timed, in the words of the table; rows: of it.
        why: it has no price, for people.
    """

    setting: Setting
    what: str
    rows: int
    why: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.what}: {self.rows} rows, {self.why}"


class Kernel(NamedTuple):
    """Kernels of one family; `shape` as in `KernelRows`."""

    family: str
    shape: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class KernelRows:
    """Timed kernels of one family in one setting.

    Attributes:
        kind: module of `hwmodels.costs` that prices them.
        family: of the profile's table of that kind.
        shape: keywords of the cost function: (rows,) float64 columns, or what is alike in all.
        time_s: (rows,) seconds.
        site: (rows,) number of what is left out as one: other rows of a site say too much of it.
        size: (rows,) what ranges of size go by: rows of a product, tokens of an attention.
        source: citation of the measurement.
    """

    setting: Setting
    kind: str
    family: str
    shape: Mapping[str, Any]
    time_s: Floats
    site: Ints
    size: Floats
    source: str

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """What was timed, as of `BlockRows`."""
        return (Kernel(self.family, self.shape),)

    def take(self, index: Any) -> "KernelRows":
        """Return the rows at `index` (positions or a mask)."""
        shape = {
            name: values[index] if isinstance(values, np.ndarray) else values
            for name, values in self.shape.items()
        }
        return replace(
            self, shape=shape, time_s=self.time_s[index], site=self.site[index],
            size=self.size[index],
        )  # fmt: skip

    def price_s(self, chip: ChipSpec, parameters: Parameters) -> Floats:
        """Return (rows,) seconds by constants, alone on all SMs unless the shape says otherwise.

        Raises:
            SpecError: the chip has no such tensor rate.
        """
        return np.asarray(kernel_time_s(chip, parameters, self.shape).time_s)

    def log_error(self, chip: ChipSpec, parameters: Parameters) -> Floats:
        """Return (rows,) log(price / measured)."""
        return np.asarray(np.log(self.price_s(chip, parameters) / self.time_s))

    def folds(self, seed: int = 0) -> list["tuple[KernelRows, KernelRows]"]:
        """Return (seen, unseen) rows of each fold; no site is in both.

        Fewer sites than `FOLDS` are a fold each.
        """
        sites = np.unique(self.site)
        order = np.random.default_rng(seed).permutation(len(sites))
        fold = (order % min(FOLDS, len(sites)))[np.searchsorted(sites, self.site)]
        return [(self.take(fold != n), self.take(fold == n)) for n in np.unique(fold)]


@dataclass(frozen=True, slots=True, eq=False)
class BlockRows:
    """Timed runs of several kernels, one after another: nothing is fitted to them, and the sum of
    the kernels' prices is judged by them.

    Attributes:
        family: name of such runs, for people.
        kernels: of which each row has one.
        time_s, size, source: as of `KernelRows`.
    """

    setting: Setting
    family: str
    kernels: tuple[Kernel, ...]
    time_s: Floats
    size: Floats
    source: str

    def __len__(self) -> int:
        return len(self.time_s)

    def __str__(self) -> str:
        why = "several kernels at once, to which none is fitted"
        return f"{self.setting}: {self.family}: {len(self)} rows, {why}"


class TableRows(NamedTuple):
    """What tables of timed kernels hold: rows that a cost model prices, those that several do
    together, and what was left out.
    """

    priced: list[KernelRows]
    blocks: list[BlockRows]
    unpriced: list[Unpriced]


def sites(*columns: npt.ArrayLike) -> Ints:
    """Return one number for each distinct tuple of values, (rows,), in their sorted order."""
    numbers = [np.unique(np.asarray(column), return_inverse=True)[1] for column in columns]
    return np.asarray(np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)[1]).ravel()
