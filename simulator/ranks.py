"""Which ranks are played, and how they differ: loads of experts, speeds, jitter, slow parts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from hwmodels.errors import SpecError
from hwmodels.spec import Spec
from hwmodels.units import Load, Seed
from workloads.model import ModelSpec

SLOWEST = 1e6
"""Of one part, whatever adds up."""


class StragglerSpec(Spec):
    """One GPU that is slower than the others.

    Attributes:
        gpu: its rank; `moesim` numbers GPUs pipeline rank by pipeline rank (`workloads.parallel`).
        part: what of it is slow: its kernels, its NIC, or its NVLink.
        slowdown: time / normal time; several of one part multiply.
    """

    gpu: Annotated[int, Field(ge=0, lt=10**9, strict=True)]
    part: Literal["gpu", "nic", "nvlink"] = "gpu"
    slowdown: Annotated[float, Field(ge=1, le=1000)]


def _none_stands_still(stragglers: tuple[StragglerSpec, ...]) -> tuple[StragglerSpec, ...]:
    """Refuse what together is slower than anything that still works."""
    slowdowns: dict[str, float] = {}
    for straggler in stragglers:
        part = f"{straggler.part} of GPU {straggler.gpu}"
        slowdowns[part] = slowdowns.get(part, 1.0) * straggler.slowdown
        if slowdowns[part] > SLOWEST:
            raise ValueError(f"{part}: must be at most {SLOWEST:g} times as slow, got more")
    return stragglers


Stragglers = Annotated[tuple[StragglerSpec, ...], AfterValidator(_none_stands_still)]


class ExpertLoadSpec(Spec):
    """How unevenly tokens spread over the ranks of an expert group.

    Attributes:
        kind: `balanced`; `lognormal` rows per rank; `zipf` popularity of experts; `matrix`, given.
        sigma: of `lognormal`: standard deviation of a rank's rows, relative to the mean.
        exponent: of `zipf`: the k-th most popular expert draws tokens as k^-exponent.
        correlation: of a layer's loads in two micro-batches. 0 draws each anew, 1 keeps the same
            experts loaded; groups and ranks that hold them share what lasts. Layers do not.
        loads: of `matrix`: a row for each MoE layer in the model's order (MTP last), or one row for
            all, with a load for each rank of the group; rows are scaled to mean 1.
    """

    kind: Literal["balanced", "lognormal", "zipf", "matrix"] = "lognormal"
    sigma: Annotated[float, Field(ge=0, le=1)] = 0.0
    exponent: Annotated[float, Field(ge=0, le=3)] = 0.0
    correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    loads: tuple[tuple[Load, ...], ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether chance decides who is loaded."""
        return bool(
            (self.kind == "lognormal" and self.sigma) or (self.kind == "zipf" and self.exponent)
        )

    def check(self, model: ModelSpec, ep: int) -> None:
        """Refuse given loads that do not fit a model whose experts `ep` ranks share.

        Raises:
            SpecError: rows of another length, or another number of them.
        """
        if not self.loads:
            return
        if len(self.loads[0]) != ep:
            raise SpecError(
                f"ranks.expert_load.loads: rows must have plan.ep = {ep} loads, "
                f"got {len(self.loads[0])}"
            )
        layers = model.routed_layers
        if len(self.loads) not in (1, layers):
            raise SpecError(
                f"ranks.expert_load.loads: must have one row, or one for each of the {layers} "
                f"layers with experts, got {len(self.loads)}"
            )

    @model_validator(mode="after")
    def _matrix_has_loads(self) -> "ExpertLoadSpec":
        if (self.kind == "matrix") != bool(self.loads):
            raise ValueError(
                f"kind = 'matrix' and 'loads' come together, "
                f"got kind = {self.kind!r} and {len(self.loads)} rows of loads"
            )
        for number, row in enumerate(self.loads):
            if len(row) != len(self.loads[0]):
                raise ValueError(
                    f"loads: rows must be as long as the first, {len(self.loads[0])}, "
                    f"got {len(row)} in row {number}"
                )
            if not any(row):
                raise ValueError(f"loads: rows must have a load above 0, got none in row {number}")
        return self


EngineName = Literal["array", "reference"]


class RanksSpec(Spec):
    """Which ranks are played and how they differ.

    Attributes:
        play: `folded` plays one pipeline, and each distinct part on all ranks of one expert group;
            `explicit` plays every rank; `auto` folds where all ranks are alike: unless some are
            persistently loaded, slow, or jittery.
        draws: folded: expert loads drawn for each distinct part; every micro-batch takes one.
        engine: what plays the task graphs: `array`, compiled, or `reference`, the definition on
            SimPy processes; same times, to rounding.
        expert_load: how uneven the experts' tokens are.
        gpu_speed_sigma: standard deviation of the GPUs' speed, a static factor each, log-normal.
        jitter: standard deviation of the time of one step on one GPU, log-normal around mean 1.
        stragglers: single slow GPUs, NICs or NVLinks.
        seed: of everything drawn.
    """

    play: Literal["auto", "folded", "explicit"] = "auto"
    engine: EngineName = "array"
    expert_load: ExpertLoadSpec = ExpertLoadSpec()
    draws: Annotated[int, Field(ge=1, le=1000, strict=True)] = 8
    gpu_speed_sigma: Annotated[float, Field(ge=0, le=0.3)] = 0.0
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    stragglers: Stragglers = ()
    seed: Seed = 0

    @property
    def unlike(self) -> tuple[str, ...]:
        """What makes single ranks differ for good, so that folding would hide it."""
        load = self.expert_load
        differs = {
            "ranks.expert_load.correlation": load.is_drawn and load.correlation > 0,
            "ranks.expert_load.loads": any(len(set(row)) > 1 for row in load.loads),
            "ranks.gpu_speed_sigma": self.gpu_speed_sigma > 0,
            "ranks.jitter": self.jitter > 0,
            "ranks.stragglers": bool(self.stragglers),
        }
        return tuple(name for name, is_so in differs.items() if is_so)

    @property
    def is_explicit(self) -> bool:
        """Whether every rank is played."""
        return self.play == "explicit" or (self.play == "auto" and bool(self.unlike))
