"""Which ranks are played, and how they differ: loads of experts, speeds, jitter, slow parts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.spec import Spec
from hwmodels.units import Load, Seed
from workloads.measured_loads import read_counts
from workloads.model import ModelSpec
from workloads.parallel import ParallelPlan

Tokens = Annotated[float, Field(ge=0, le=1e15)]
"""That an expert got, in whatever was measured."""

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
        kind: `balanced`; `lognormal` rows per rank; `zipf` popularity of experts; `matrix`, given,
            of ranks; `measured`, given, of experts.
        sigma: of `lognormal`: standard deviation of a rank's rows, relative to the mean; of
            `measured`: of what an expert gets in a micro-batch, relative to its counts.
        exponent: of `zipf`: the k-th most popular expert draws tokens as k^-exponent.
        correlation: of a layer's loads in two micro-batches. 0 draws each anew, 1 keeps the same
            experts loaded; groups and ranks that hold them share what lasts. Layers do not.
        loads: of `matrix`: a row for each MoE layer in the model's order (MTP last), or one row for
            all, with a load for each rank of the group; rows are scaled to mean 1.
        counts: of `measured`: likewise, with the tokens of each expert; or a `.csv` or `.parquet`
            file of such rows (`workloads.measured_loads`).
    """

    kind: Literal["balanced", "lognormal", "zipf", "matrix", "measured"] = "lognormal"
    sigma: Annotated[float, Field(ge=0, le=1)] = 0.0
    exponent: Annotated[float, Field(ge=0, le=3)] = 0.0
    correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    loads: tuple[tuple[Load, ...], ...] = ()
    counts: Annotated[tuple[tuple[Tokens, ...], ...], BeforeValidator(read_counts)] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether chance decides who is loaded."""
        spread = {"lognormal": self.sigma, "measured": self.sigma, "zipf": self.exponent}
        return spread.get(self.kind, 0.0) > 0

    @property
    def tells_experts(self) -> bool:
        """Whether loads of single experts are known, not only those of ranks."""
        return self.kind in ("zipf", "measured") or not (self.is_drawn or self.kind == "matrix")

    def check(self, model: ModelSpec, ep: int) -> None:
        """Refuse given loads that do not fit a model whose experts `ep` ranks share.

        Raises:
            SpecError: rows of another length, or another number of them.
        """
        experts = model.moe.routed_experts if model.moe else 0
        for name, rows, width, words in (
            ("loads", self.loads, ep, f"plan.ep = {ep} loads"),
            ("counts", self.counts, experts, f"a count for each of {experts} routed experts"),
        ):
            if rows and len(rows[0]) != width:
                raise SpecError(
                    f"ranks.expert_load.{name}: rows must have {words}, got {len(rows[0])}"
                )
            layers = model.routed_layers
            if rows and len(rows) not in (1, layers):
                raise SpecError(
                    f"ranks.expert_load.{name}: must have one row, or one for each of the {layers} "
                    f"layers with experts, got {len(rows)}"
                )

    @model_validator(mode="after")
    def _what_is_given_has_rows(self) -> "ExpertLoadSpec":
        for kind, name, rows in (
            ("matrix", "loads", self.loads),
            ("measured", "counts", self.counts),
        ):
            if (self.kind == kind) != bool(rows):
                raise ValueError(
                    f"kind = {kind!r} and {name!r} come together, "
                    f"got kind = {self.kind!r} and {len(rows)} rows of {name}"
                )
            for number, row in enumerate(rows):
                if len(row) != len(rows[0]):
                    raise ValueError(
                        f"{name}: rows must be as long as the first, {len(rows[0])}, "
                        f"got {len(row)} in row {number}"
                    )
                if not any(row):
                    raise ValueError(
                        f"{name}: rows must have a load above 0, got none in row {number}"
                    )
        return self


class ExpertPlacementSpec(Spec):
    """Which ranks of an expert group hold which experts.

    Attributes:
        policy: `contiguous`, in order; `eplb`, by DeepSeek's load balancer (`workloads.eplb`), from
            the loads that last: counts, or the mean of many micro-batches. Groups of experts stay
            on a node each where they divide over the nodes, as its hierarchical policy has it.
        redundant_experts: slots of a layer, on all ranks of a group together, beyond one for each
            expert: of `eplb`. In training their replicas add up their gradients.
    """

    policy: Literal["contiguous", "eplb"] = "contiguous"
    redundant_experts: Annotated[int, Field(ge=0, le=2**16, strict=True)] = 0

    @model_validator(mode="after")
    def _redundant_ones_are_chosen_by_load(self) -> "ExpertPlacementSpec":
        if self.redundant_experts and self.policy != "eplb":
            raise ValueError(
                f"redundant_experts: must be 0 without policy = 'eplb', "
                f"got {self.redundant_experts}"
            )
        return self

    def check(self, load: ExpertLoadSpec, model: ModelSpec, plan: ParallelPlan) -> None:
        """Refuse to place experts whose loads are not known, or that do not divide.

        Raises:
            SpecError: loads of single experts do not last.
            InfeasibleError: slots do not divide over the ranks of a group, or redundant experts
                are split.
        """
        ep = plan.ep
        if self.policy == "contiguous":
            return
        lasts = load.kind == "measured" or (load.is_drawn and load.correlation > 0)
        if model.moe is None or not load.tells_experts or not lasts:
            raise SpecError(
                f"ranks.expert_placement.policy: eplb needs loads of experts that last, "
                f"ranks.expert_load.kind = 'measured', or 'zipf' with a correlation, "
                f"got {load.kind!r}"
            )
        slots = model.moe.routed_experts + self.redundant_experts
        if slots % ep:
            raise InfeasibleError(
                f"ranks.expert_placement.redundant_experts: with {model.moe.routed_experts} routed "
                f"experts must divide over plan.ep = {ep} ranks, got {self.redundant_experts}"
            )
        if self.redundant_experts and plan.etp > 1:
            raise InfeasibleError(
                f"ranks.expert_placement.redundant_experts: must be 0 where plan.etp is above 1, "
                f"as gradients of split copies are not added up, got {self.redundant_experts}"
            )


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
        expert_placement: which ranks hold which experts.
        gpu_speed_sigma: standard deviation of the GPUs' speed, a static factor each, log-normal.
        jitter: standard deviation of the time of one step on one GPU, log-normal around mean 1.
        stragglers: single slow GPUs, NICs or NVLinks.
        seed: of everything drawn.
    """

    play: Literal["auto", "folded", "explicit"] = "auto"
    engine: EngineName = "array"
    expert_load: ExpertLoadSpec = ExpertLoadSpec()
    expert_placement: ExpertPlacementSpec = ExpertPlacementSpec()
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
            "ranks.expert_load.counts": any(len(set(row)) > 1 for row in load.counts),
            "ranks.gpu_speed_sigma": self.gpu_speed_sigma > 0,
            "ranks.jitter": self.jitter > 0,
            "ranks.stragglers": bool(self.stragglers),
        }
        return tuple(name for name, is_so in differs.items() if is_so)

    @property
    def is_explicit(self) -> bool:
        """Whether every rank is played."""
        return self.play == "explicit" or (self.play == "auto" and bool(self.unlike))
