"""Constants measured on one chip, for another: what datasheets do not say about a generation.

The cost functions carry datasheet figures over by themselves: SMs, clock, tensor rates, bandwidths,
caches, whether tensor cores scale blocks. What is left are three facts of a generation, and power:

    sustained' = sustained * (W / FLOP/s of the chip) / (the same of the other) * e / e'
    overhead'  = overhead * o' / o
    hbm'       = hbm * h' / h

with e the energy of a tensor FLOP, o the cycles around a tile and h the share of HBM that kernels
reach. A chip with much power for its tensor cores (H20) never meets its limit; one with little
(B200) meets it sooner.

Constants are those of `GENERATIONS`, from fits of one cost function to tables of one source.
"""

from functools import lru_cache
from typing import NamedTuple

from hwmodels.chip import CHIPS, ChipSpec, Generation
from hwmodels.costs import GemmParameters, Parameters
from hwmodels.identity import Same


class GenerationFacts(NamedTuple):
    """What chips of one generation have in common and no datasheet says.

    Attributes:
        tensor_energy: of one FLOP, relative to Hopper.
        tile_overhead_cycles: before and after the steps of a tile.
        hbm_efficiency: share of HBM that products reach.
    """

    tensor_energy: float
    tile_overhead_cycles: float
    hbm_efficiency: float


GENERATIONS: dict[Generation, GenerationFacts] = {
    "ampere": GenerationFacts(1.52, 4200.0, 0.74),
    "hopper": GenerationFacts(1.0, 1600.0, 0.84),
    "blackwell": GenerationFacts(0.73, 370.0, 0.80),
}
"""Fits of `costs.gemm` to BF16 rows of the AIConfigurator tables (ai-dynamo/aiconfigurator
@095f58a5) on A100 (vLLM), H200 and B200 (TensorRT-LLM). The energy is what makes the sustained
fractions fitted there (0.92, 0.77, 0.66) follow from the power of the chips (400, 700, 1000 W)."""

LEAST_SUSTAINED, MOST_OVERHEAD_CYCLES = 0.4, 12000.0
LEAST_HBM, MOST_HBM = 0.7, 0.95

SIBLING_SPREAD, GENERATION_SPREAD = 0.04, 0.16
"""Standard deviation of log(measured / transferred) that a family has as a whole. In the same
tables median errors by datasheet alone are 4.3 % (BF16) and 3.7 % (FP8) from H200 to H100, where
fits on the chip itself have 4.6 and 3.1; to B200 13.2 and 9.6 %, to A100 15.8 %."""


def is_same(measured_on: str, chip: ChipSpec) -> bool:
    """Return whether a chip is the one of that name, be it with numbers of one's own."""
    return chip.name.removesuffix(", changed") == measured_on


def transfer_spread(measured_on: str, chip: ChipSpec) -> float:
    """Return the standard deviation of log(seconds) of a family that a transfer adds."""
    if is_same(measured_on, chip):
        return 0.0
    same = CHIPS.load(measured_on).generation == chip.generation
    return SIBLING_SPREAD if same else GENERATION_SPREAD


def is_powered_alike(measured_on: str, chip: ChipSpec) -> bool:
    """Return whether a chip has the power for its tensor cores that the one of that name has; one
    that is no preset is only known as it is.
    """
    origin = _preset(measured_on)
    return origin is None or all(
        _power(chip, family) == _power(origin, family)
        for family in chip.tensor.keys() & origin.tensor.keys()
    )


def adapted(
    parameters: Parameters, measured_on: str, chip: ChipSpec, tensor_family: str = "bf16"
) -> Parameters:
    """Return constants measured on one chip as they should be on another.

    Args:
        tensor_family: that they are of, whose rate shares the power of the chip.

    Raises:
        UnknownPresetError: no chip has the name.
    """
    return _adapted(Same(parameters), measured_on, Same(chip), tensor_family)


@lru_cache(maxsize=1024)
def _adapted(same: Same, measured_on: str, same_chip: Same, tensor_family: str) -> Parameters:
    parameters: Parameters = same.value
    if not isinstance(parameters, GemmParameters):
        return parameters
    chip: ChipSpec = same_chip.value
    origin = _preset(measured_on) or CHIPS.load(measured_on)
    if not {tensor_family} <= chip.tensor.keys() & origin.tensor.keys():
        tensor_family = "bf16"  # every chip has it
    old, new = GENERATIONS[origin.generation], GENERATIONS[chip.generation]
    overhead_ratio = new.tile_overhead_cycles / old.tile_overhead_cycles
    overhead = parameters.tile_overhead_cycles * overhead_ratio
    hbm = parameters.hbm_efficiency * (new.hbm_efficiency / old.hbm_efficiency)
    sustained = parameters.sustained_fraction
    if sustained < 1:
        watts = _power(chip, tensor_family) / _power(origin, tensor_family)
        sustained *= watts * (old.tensor_energy / new.tensor_energy)
    return parameters.model_copy(
        update={
            "tile_overhead_cycles": min(overhead, MOST_OVERHEAD_CYCLES),
            "hbm_efficiency": min(max(hbm, LEAST_HBM), MOST_HBM),
            "sustained_fraction": min(max(sustained, LEAST_SUSTAINED), 1.0),
        }
    )


@lru_cache(maxsize=64)
def _preset(name: str) -> ChipSpec | None:
    return CHIPS.load(name) if name in CHIPS.names() else None


def _power(chip: ChipSpec, tensor_family: str) -> float:
    """Return the watts of a chip for each FLOP/s of its tensor cores."""
    return chip.tdp_w / chip.tensor[tensor_family]
