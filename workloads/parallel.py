"""How a model is split over GPUs: sizes of the groups, and which rank sits where.

Two meshes lie over the same ranks (folding): attention sees (pp, dp, cp, tp), experts see
(pp, edp, ep), both row-major, with `dp x cp x tp = edp x ep` ranks for each pipeline rank:

    rank = pp_rank * (dp cp tp) + (dp_rank * cp + cp_rank) * tp + tp_rank
         = pp_rank * (edp ep)   + edp_rank * ep + ep_rank

So consecutive ranks, which share a node as long as it has room (`workloads.placement`), are
data-parallel ranks of one pipeline rank. DeepSeek-V3: 2,048 GPUs,
PP 16, EP 64 (arXiv 2412.19437v2 §3.2): 128 data-parallel ranks on 16 nodes for each pipeline
rank, in two expert groups of 8 nodes, and all pipeline messages cross nodes.

A stage's parameters live on `copies` pipeline ranks (two under DualPipe), all of which add their
gradients: `dp cp copies` replicas of dense weights (256), `edp copies` of each expert (4).

Not modelled yet: tensor and context parallelism, ZeRO beyond 1.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import Field

from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import Count, Experts, Layers
from workloads.batch import BatchSpec
from workloads.layout import Layout, resolve_layout
from workloads.model import ModelSpec
from workloads.schedules import Schedule, schedule


class Coordinates(NamedTuple):
    """Place of one rank in both meshes."""

    pp: int
    dp: int
    cp: int
    tp: int
    edp: int
    ep: int


@dataclass(frozen=True, slots=True)
class RankMesh:
    """The ranks of one job and their coordinates; see the module docstring for the order."""

    pp: int
    dp: int
    ep: int
    cp: int = 1
    tp: int = 1

    @property
    def ranks_per_stage(self) -> int:
        """Ranks of one pipeline rank: `dp cp tp`."""
        return self.dp * self.cp * self.tp

    @property
    def ranks(self) -> int:
        """All ranks: `pp dp cp tp`."""
        return self.pp * self.ranks_per_stage

    @property
    def edp(self) -> int:
        """Expert groups of one pipeline rank."""
        return self.ranks_per_stage // self.ep

    def coordinates(self, rank: int) -> Coordinates:
        """Return where `rank` sits.

        Raises:
            InfeasibleError: there is no such rank.
        """
        if not 0 <= rank < self.ranks:
            raise InfeasibleError(f"rank: from 0 to {self.ranks - 1}, got {rank}")
        pp, local = divmod(rank, self.ranks_per_stage)
        data, tp = divmod(local, self.tp)
        dp, cp = divmod(data, self.cp)
        edp, ep = divmod(local, self.ep)
        return Coordinates(pp, dp, cp, tp, edp, ep)

    def rank(self, pp: int, dp: int, cp: int = 0, tp: int = 0) -> int:
        """Return the rank at these coordinates of the attention mesh."""
        return pp * self.ranks_per_stage + (dp * self.cp + cp) * self.tp + tp

    def expert_rank(self, pp: int, edp: int, ep: int) -> int:
        """Return the rank at these coordinates of the expert mesh."""
        return pp * self.ranks_per_stage + edp * self.ep + ep

    def expert_group(self, rank: int) -> range:
        """Ranks that exchange tokens with `rank` in dispatch and combine, itself included."""
        at = self.coordinates(rank)
        first = self.expert_rank(at.pp, at.edp, 0)
        return range(first, first + self.ep)

    def pipeline(self, rank: int) -> range:
        """Ranks that pass micro-batches along with `rank`, by pipeline rank."""
        return range(rank % self.ranks_per_stage, self.ranks, self.ranks_per_stage)


class ParallelPlan(Spec):
    """How the model is split.

    Attributes:
        pp, ep, tp, cp: pipeline, expert, tensor and context parallel sizes.
        dp: data-parallel size (pipelines); None takes what the GPUs leave. Given, it may leave the
            cluster's last GPUs idle: 64 of a rack of 72.
        zero: 0 replicates optimizer states, 1 shards them over the replicas.
        schedule: name of a pipeline schedule (`workloads.schedules`).
        layout: which layers sit on which stage (`workloads.layout`); None splits evenly.
    """

    pp: Layers = 1
    ep: Experts = 1
    dp: Count | None = None
    tp: Count = 1
    cp: Count = 1
    zero: Annotated[int, Field(ge=0, le=1)] = 1
    schedule: str = "1f1b"
    layout: Annotated[str, Field(max_length=10_000)] | None = None

    @property
    def pipeline_schedule(self) -> Schedule:
        """The schedule this plan names.

        Raises:
            SpecError: no such schedule.
        """
        return schedule(self.schedule)

    def check(self, model: ModelSpec, gpus: int) -> None:
        """Refuse a plan that cannot run `model` on `gpus` GPUs.

        Raises:
            SpecError: unknown schedule, or a layout that cannot be read.
            InfeasibleError: sizes that do not divide, a layout that does not hold the model, or a
                kind of parallelism that is not modelled.
        """
        if model.moe is None and self.ep > 1:
            raise InfeasibleError(f"plan.ep: {model.name} has no experts, must be 1, got {self.ep}")
        if model.moe and model.moe.routed_experts % self.ep:
            raise InfeasibleError(
                f"plan.ep: must divide the {model.moe.routed_experts} routed experts of "
                f"{model.name}, got {self.ep}"
            )
        self.mesh(gpus)
        self.stages(model)
        pipeline = self.pipeline_schedule
        pipeline.check(self.pp, pipeline.minimum_microbatches(self.pp))

    def mesh(self, gpus: int) -> RankMesh:
        """Lay the plan over `gpus` GPUs.

        Raises:
            InfeasibleError: sizes that do not multiply or divide, or are not modelled.
        """
        for name, size in (("tp", self.tp), ("cp", self.cp)):
            if size > 1:
                raise InfeasibleError(f"plan.{name}: not modelled yet, must be 1, got {size}")
        unit = self.tp * self.cp * self.pp
        if self.dp is None and gpus % unit:
            raise InfeasibleError(
                f"plan: tp x cp x pp = {unit} must divide the {gpus} GPUs of the cluster, "
                f"unless plan.dp says how many pipelines run on a part of them"
            )
        dp = gpus // unit if self.dp is None else self.dp
        if unit * dp > gpus:
            raise InfeasibleError(
                f"plan: tp x cp x pp x dp must be at most the {gpus} GPUs of the cluster, "
                f"got {self.tp} x {self.cp} x {self.pp} x {dp} = {unit * dp}"
            )
        mesh = RankMesh(pp=self.pp, dp=dp, ep=self.ep, cp=self.cp, tp=self.tp)
        if mesh.ranks_per_stage % self.ep:
            raise InfeasibleError(
                f"plan.ep: must divide the dp x cp x tp = {mesh.ranks_per_stage} ranks of a "
                f"pipeline rank, got {self.ep}"
            )
        return mesh

    def stages(self, model: ModelSpec) -> Layout:
        """Units of every stage, the plan's layout or the default one.

        Raises:
            SpecError: the layout cannot be read.
            InfeasibleError: it does not hold the model once on `pp` stages.
        """
        return resolve_layout(self.layout, model, self.pp)

    def microbatches(self, batch: BatchSpec, gpus: int) -> int:
        """Micro-batches per pipeline, checked against what the schedule can run.

        Raises:
            InfeasibleError: the batch does not divide, or the schedule needs more micro-batches.
        """
        count = batch.microbatches(self.mesh(gpus).dp)
        self.pipeline_schedule.check(self.pp, count)
        return count

    def stages_of_rank(self, pp_rank: int) -> tuple[int, ...]:
        """Stages that pipeline rank `pp_rank` holds."""
        return self.pipeline_schedule.stages_of_rank(self.pp, pp_rank)

    def homes_of_stage(self, stage: int) -> tuple[int, ...]:
        """Pipeline ranks that hold `stage`."""
        return tuple(rank for rank in range(self.pp) if stage in self.stages_of_rank(rank))
