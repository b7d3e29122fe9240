"""One family of kernels, measured and priced: what a report of a calibration is made of."""

from dataclasses import dataclass

from hwmodels.arrays import Floats


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of a family, its value, where that is from, and whether the rows tell it."""

    name: str
    value: str
    source: str
    told: bool


@dataclass(frozen=True, slots=True)
class FamilyReport:
    """One family of kernels on one chip, (rows,) columns.

    Attributes:
        title: library, chip and family.
        source: where the rows are from.
        size: what errors are shown over: rows of a product, tokens.
        measured_s, priced_s: seconds.
        flops, moved_bytes: of each kernel.
        peak_flops_per_s, bytes_per_s: of the chip, for the roofline.
        constants: of the cost function.
        errors: (name, median, P90, bias) as fractions.
    """

    title: str
    source: str
    size: Floats
    measured_s: Floats
    priced_s: Floats
    flops: Floats
    moved_bytes: Floats
    peak_flops_per_s: float
    bytes_per_s: float
    constants: tuple[Constant, ...]
    errors: tuple[tuple[str, float, float, float], ...]
