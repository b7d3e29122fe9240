"""Number formats: how many bits a value takes, and how its scale is shared.

`FORMATS["fp8_1x128"]` is an E4M3 value with one FP32 scale per 128 neighbours in a row, as
DeepSeek-V3 stores activations (arXiv 2412.19437 §3.3.2); `fp8_128x128` shares one scale per
128x128 block of a weight. Tensor cores that scale blocks themselves take `mxfp8` (one E8M0 scale
per 32; OCP Microscaling Formats 1.0) and `nvfp4` (one E4M3 scale per 16; NVIDIA Blackwell
Architecture Technical Brief). `bytes_of` counts the scales, `element_bytes` does not.

LogFMT (ISCA'25 "Insights into DeepSeek-V3", arXiv 2505.09343 §3.2) keeps a sign and steps between
the least and the largest logarithm of a 1x128 tile. What goes with a tile is not published: both in
FP32, 8 bytes, are assumed.
"""

from dataclasses import dataclass

from hwmodels.errors import SpecError, suggestion


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """One storage format.

    Attributes:
        name: key in `FORMATS`.
        bits: bits of one element, scale excluded.
        exponent_bits, mantissa_bits: of the element; 0 and 0 where the code is not IEEE-like.
        family: tensor-core rate it runs at, a key of `ChipSpec.tensor`.
        scale_block: elements that share one scale, 0 for none.
        scale_bytes: of one scale, FP32 unless the format says otherwise.
    """

    name: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    family: str
    scale_block: int = 0
    scale_bytes: int = 4

    @property
    def is_logarithmic(self) -> bool:
        """Whether elements are coded by their logarithm."""
        return self.name.startswith("logfmt")

    @property
    def element_bytes(self) -> float:
        """Bytes of one element without its share of a scale."""
        return self.bits / 8

    def bytes_of(self, elements: float) -> float:
        """Bytes of `elements` values with their scales."""
        scales = elements / self.scale_block * self.scale_bytes if self.scale_block else 0.0
        return elements * self.element_bytes + scales


_ALL = (
    NumberFormat("fp32", 32, 8, 23, "tf32"),
    NumberFormat("bf16", 16, 8, 7, "bf16"),
    NumberFormat("fp16", 16, 5, 10, "bf16"),
    NumberFormat("fp8_e4m3", 8, 4, 3, "fp8"),
    NumberFormat("fp8_e5m2", 8, 5, 2, "fp8"),
    NumberFormat("fp8_1x128", 8, 4, 3, "fp8", scale_block=128),
    NumberFormat("fp8_128x128", 8, 4, 3, "fp8", scale_block=128 * 128),
    NumberFormat("mxfp8", 8, 4, 3, "fp8", scale_block=32, scale_bytes=1),
    NumberFormat("nvfp4", 4, 2, 1, "fp4", scale_block=16, scale_bytes=1),
    NumberFormat("e5m6", 12, 5, 6, "bf16"),
    NumberFormat("logfmt8", 8, 0, 7, "bf16", scale_block=128, scale_bytes=8),
    NumberFormat("logfmt10", 10, 0, 9, "bf16", scale_block=128, scale_bytes=8),
)
FORMATS: dict[str, NumberFormat] = {f.name: f for f in _ALL}


def number_format(name: str) -> NumberFormat:
    """Return the format called `name`.

    Raises:
        SpecError: no such format.
    """
    if name not in FORMATS:
        raise SpecError(f"number format {name!r}: unknown{suggestion(name, FORMATS)}")
    return FORMATS[name]
