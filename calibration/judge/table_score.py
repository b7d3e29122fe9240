"""How well a profile prices rows of tables: by family and range of size, against a roofline."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibration.fit.errors import Errors
from calibration.rows import BlockRows, Kernel, KernelRows, Setting, TableRows
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs.kernel import kernel_time_s, kernel_work
from hwmodels.costs.work import roofline_s
from hwmodels.errors import CalibrationError, listed
from hwmodels.profile import PROFILES, KernelProfile
from hwmodels.transfer import adapted, is_same

SIZES: tuple[tuple[float, float | None], ...] = (
    (0.0, None), (0.0, 64.0), (64.0, 512.0), (512.0, 4096.0), (4096.0, None),
)  # fmt: skip
"""Ranges that errors are told for, the first of all: rows of a product, tokens."""


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one family in one setting, in one range of sizes.

    Attributes:
        sizes: above the first, up to the second; to the largest where that is None.
        constants: of prices by constants alone.
        with_rows: of those that the measured rows of the profile correct; None where it has
            none of the family.
        roofline: of the larger of FLOPs over peak and bytes over bandwidth.
    """

    setting: Setting
    family: str
    sizes: tuple[float, float | None]
    constants: Errors
    with_rows: Errors | None
    roofline: Errors


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of all rows that could be priced, and why others could not."""

    scores: tuple[Score, ...]
    skipped: tuple[str, ...]


def judge_tables(
    tables: TableRows, chip: str | None, library: str | None, profile: str | None
) -> Scores:
    """Return how well a profile prices rows, those of several kernels as the sum of them.

    Args:
        chip, library: whose rows count; None for all.
        profile: preset or .toml file; None for the one shipped for each setting.

    Raises:
        CalibrationError: no row counts, or none is priced by the profile.
        UnknownPresetError: there is no such profile.
    """
    found: list[Score] = []
    skipped = [str(each) for each in tables.unpriced if each.setting.counts(chip, library)]
    every: list[KernelRows | BlockRows] = [*tables.priced, *tables.blocks]
    for each in every:
        setting = each.setting
        if not setting.counts(chip, library):
            continue
        judge = PROFILES.load(profile) if profile else profile_for(setting)
        unknown = [kernel.family for kernel in each.kernels if not judge.knows(kernel.family)]
        if unknown:
            what = "none" if unknown == [each.family] else f"no {unknown[0]}"
            skipped.append(
                f"{setting}: {each.family}: {len(each)} rows, profile {judge.name} has {what}"
            )
        else:
            found += scores(each, judge)
    if not found:
        why = (
            skipped[0]
            if skipped
            else f"no rows of {library or 'any library'} on {chip or 'any chip'}"
        )
        raise CalibrationError(f"score: {why}")
    return Scores(tuple(found), tuple(skipped))


def profile_for(setting: Setting) -> KernelProfile:
    """Return the shipped profile of a chip and library.

    Raises:
        CalibrationError: there is none.
    """
    name = f"{setting.chip}-{setting.library}"
    if name not in PROFILES.names():
        raise CalibrationError(
            f"--profile: none is shipped for {setting}; name one ({listed(PROFILES.names())}) or "
            "a .toml file"
        )
    return PROFILES.load(name)


class Priced(NamedTuple):
    """(rows,) seconds by constants, with the rows of the profile, and by the roofline."""

    constants_s: Floats
    with_rows_s: Floats | None
    roofline_s: Floats


def priced(rows: KernelRows | BlockRows, profile: KernelProfile) -> Priced:
    """Return what rows of one family, or of several kernels together, cost by a profile.

    Rows measured on another chip than the profile's are priced by what is transferred to it.

    Raises:
        OutOfRangeError: the profile does not know the family.
        SpecError: the chip has no such tensor rate.
    """
    chip = CHIPS.load(rows.setting.chip)
    prices = [_priced(chip, kernel, profile) for kernel in rows.kernels]
    corrected = [p.constants_s if p.with_rows_s is None else p.with_rows_s for p in prices]
    is_corrected = any(each.with_rows_s is not None for each in prices)
    return Priced(
        np.sum([each.constants_s for each in prices], axis=0),
        np.sum(corrected, axis=0) if is_corrected else None,
        np.sum([each.roofline_s for each in prices], axis=0),
    )


def _priced(chip: ChipSpec, kernel: Kernel, profile: KernelProfile) -> Priced:
    family, shape = kernel
    parameters = profile.parameters(family)
    if not is_same(profile.chip, chip):
        parameters = adapted(parameters, profile.chip, chip)
    time_s = kernel_time_s(chip, parameters, shape).time_s
    constants_s = time_s * profile.factor.get(family, 1.0)
    residual = profile.residual_factor(family, shape)
    return Priced(
        constants_s,
        None if residual is None else constants_s * residual,
        roofline_s(chip, kernel_work(parameters, shape)),
    )


def scores(rows: KernelRows | BlockRows, profile: KernelProfile) -> Iterator[Score]:
    """Yield the errors of one family: of all its rows first, then by range of size.

    Raises:
        OutOfRangeError, SpecError: see `priced`.
    """
    by = [None if s is None else np.log(s / rows.time_s) for s in priced(rows, profile)]
    for low, high in SIZES:
        some = (rows.size > low) & (rows.size <= (high or np.inf))
        if some.any():
            constants, with_rows, ideal = (e if e is None else Errors.of(e[some]) for e in by)
            assert constants is not None, "constants price every row"
            assert ideal is not None, "and so does the datasheet"
            yield Score(rows.setting, rows.family, (low, high), constants, with_rows, ideal)
