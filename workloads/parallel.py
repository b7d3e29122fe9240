"""How a model is split over GPUs: the sizes of its groups, laid over the ranks of a job.

Attention and dense FFNs see the axes (pp, dp, cp, tp), experts see (pp, edp, ep, etp), with
`dp cp tp = edp ep etp` ranks for each pipeline rank (`workloads.mesh`): the two are folded over the
same ranks independently (MoE parallel folding, arXiv 2504.14960). So consecutive ranks are ranks of
one pipeline rank, tensor-parallel ones first. DeepSeek-V3: 2,048 GPUs, PP 16, EP 64 (arXiv
2412.19437v2 §3.2): 128 data-parallel ranks on 16 nodes for each pipeline rank, in two expert groups
of 8 nodes, and all pipeline messages cross nodes.

A stage's parameters live on `copies` pipeline ranks (two under DualPipe), all of which add their
gradients: `dp cp copies` replicas of dense weights (256), `edp copies` of each expert (4).
"""

from typing import Annotated, Literal

from pydantic import Field

from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import Count, Experts, Layers
from workloads.batch import BatchSpec
from workloads.layout import resolve_layout
from workloads.mesh import Mesh
from workloads.model import ModelSpec
from workloads.schedules import Schedule, schedule
from workloads.units import Layout


class ParallelPlan(Spec):
    """How the model is split.

    Attributes:
        pp, ep, tp, cp: pipeline, expert, tensor and context parallel sizes.
        etp: tensor parallel size of experts.
        sequence_parallel: whether tensor-parallel ranks keep a share of the tokens each between
            their products (arXiv 2205.05198 §4.2.2), instead of all of them the same.
        cp_comm: how context-parallel ranks get each other's keys and values: `p2p` passes them
            round a ring while cores compute, `all_gather` gathers them first, `a2a` trades tokens
            for heads (Ulysses, arXiv 2309.14509).
        dp: data-parallel size (pipelines); None takes what the GPUs leave. Given, it may leave the
            cluster's last GPUs idle: 64 of a rack of 72.
        zero: 0 replicates optimizer states, 1 shards them over the replicas.
        vpp: model chunks of each pipeline rank (virtual pipeline stages); None takes what the
            schedule is made for: 1, or 2 for interleaved and V-shapes. A schedule refuses what it
            cannot run: 1f1b with more than one is called interleaved, and does not turn into it.
        schedule: name of a pipeline schedule (`workloads.schedules`).
        layout: which layers sit on which stage (`workloads.layout`); None splits evenly.
    """

    pp: Layers = 1
    ep: Experts = 1
    dp: Count | None = None
    tp: Count = 1
    cp: Count = 1
    etp: Count = 1
    sequence_parallel: bool = True
    cp_comm: Literal["p2p", "all_gather", "a2a"] = "p2p"
    zero: Annotated[int, Field(ge=0, le=1)] = 1
    vpp: Layers | None = None
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
        if model.moe is None:
            for name, size in (("ep", self.ep), ("etp", self.etp)):
                if size > 1:
                    raise InfeasibleError(
                        f"plan.{name}: {model.name} has no experts, must be 1, got {size}"
                    )
        elif self.tp > 1 and not self.sequence_parallel:
            raise InfeasibleError(
                f"plan.sequence_parallel: must be true for experts where plan.tp is above 1, as "
                f"each rank sends tokens of its own, got false and tp {self.tp}"
            )
        if model.moe and model.moe.routed_experts % self.ep:
            raise InfeasibleError(
                f"plan.ep: must divide the {model.moe.routed_experts} routed experts of "
                f"{model.name}, got {self.ep}"
            )
        self.mesh(gpus)
        self.stages(model)
        pipeline = self.pipeline_schedule
        pipeline.check(self.pp, pipeline.minimum_microbatches(self.pp), self.vpp)

    def mesh(self, gpus: int) -> Mesh:
        """Lay the plan over `gpus` GPUs.

        Raises:
            InfeasibleError: sizes that do not multiply or divide.
        """
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
        width = dp * self.cp * self.tp
        experts = self.ep * self.etp
        if width % experts:
            name, size = ("ep x etp", f"{self.ep} x {self.etp}")
            name, size = (name, size) if self.etp > 1 else ("ep", str(self.ep))
            raise InfeasibleError(
                f"plan.{name}: must divide the dp x cp x tp = {width} ranks of a pipeline rank, "
                f"got {size}"
            )
        return Mesh.of(
            dense={"pp": self.pp, "dp": dp, "cp": self.cp, "tp": self.tp},
            expert={"pp": self.pp, "edp": width // experts, "ep": self.ep, "etp": self.etp},
        )

    def stages(self, model: ModelSpec) -> Layout:
        """Units of every stage, the plan's layout or the default one.

        Raises:
            SpecError: the layout cannot be read.
            InfeasibleError: it does not hold the model once on all stages, or the schedule cannot
                run with `vpp` chunks a rank.
        """
        chunks = self.pipeline_schedule.stages(self.pp, self.vpp) // self.pp
        return resolve_layout(self.layout, model, self.pp, chunks)

    def microbatches(self, batch: BatchSpec, gpus: int) -> int:
        """Micro-batches per pipeline, checked against what the schedule can run.

        Raises:
            InfeasibleError: the batch does not divide, or the schedule needs more micro-batches.
        """
        count = batch.microbatches(self.mesh(gpus).size("dp"))
        self.pipeline_schedule.check(self.pp, count, self.vpp)
        return count

    def tokens_of_rank(self, batch: BatchSpec) -> int:
        """Tokens that a rank has of each sequence for its products.

        Raises:
            InfeasibleError: context- or tensor-parallel ranks cannot have equal shares.
        """
        length = batch.sequence_length
        if self.cp > 1 and length % (2 * self.cp):
            raise InfeasibleError(
                f"plan.cp: 2 cp must divide the sequence length {length}, as each rank has a slice "
                f"from either end, got {self.cp}"
            )
        tokens = batch.microbatch_sequences * length // self.cp
        if self.sequence_parallel and tokens % self.tp:
            raise InfeasibleError(
                f"plan.tp: must divide the {tokens} tokens of a micro-batch on a context-parallel "
                f"rank, got {self.tp}"
            )
        return length // self.cp

    def stages_of_rank(self, pp_rank: int) -> tuple[int, ...]:
        """Stages that pipeline rank `pp_rank` holds."""
        return self.pipeline_schedule.stages_of_rank(self.pp, pp_rank, self.vpp)

    def homes_of_stage(self, stage: int) -> tuple[int, ...]:
        """Pipeline ranks that hold `stage`."""
        return tuple(rank for rank in range(self.pp) if stage in self.stages_of_rank(rank))
