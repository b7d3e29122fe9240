"""A program: all that a workload asks of the ranks of one pipeline, and no second of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodels.arrays import Ints
from workloads.experts import ExpertGroup
from workloads.homes import Holders, Home
from workloads.layers import Layer
from workloads.ops import Comm
from workloads.optimizer import OptimizerStep
from workloads.placement import Placement
from workloads.routing import RoutingStatistics
from workloads.segments import Part
from workloads.steps import Step, StepTable


@dataclass(frozen=True, slots=True, eq=False)
class LoadTable:
    """Expert loads that a pipeline meets: one for each micro-batch on each routed layer.

    Attributes:
        rank: (loads,) pipeline rank that meets each; layer: number of the routed layer in the
            model, of `layers`.
        of_part: of each part, (its steps, its loads) loads that they meet.
    """

    rank: Ints
    layer: Ints
    layers: int
    of_part: tuple[Ints, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What the ranks of one pipeline do; all pipelines do the same.

    Attributes:
        scenario: what is asked of them: the kind of metrics that they are judged by.
        phases: of a breakdown of their time, in order, with words for people.
        placement: where the ranks sit, on the axes of their mesh.
        parts: distinct ones; part: (steps,) which of them each step runs.
        table: the steps.
        message: what ranks pass each other for a token.
        loads: of experts.
        routing: copies that a token costs in an exchange, for each of `placement.layouts`; none
            without experts.
        experts: routed ones of a layer, of which each token goes to `top_k`; 0 without any.
        homes: pipeline ranks that hold the same stages; tables: what several of them hold.
        end: by pipeline rank, what follows its last step.
        memory_bytes: by pipeline rank, bytes by term.
        stages: layers of every stage, which the parts are made of.
        microbatches: of a pipeline.
        expert_group: where experts lie and what they take; None where they lie in order, take all
            that comes and are loaded alike in the long run.
    """

    scenario: str
    phases: Mapping[str, str]
    placement: Placement
    parts: tuple[Part, ...]
    part: Ints
    table: StepTable[Step]
    message: Comm
    loads: LoadTable
    routing: tuple[RoutingStatistics, ...]
    experts: int
    top_k: int
    homes: tuple[Home, ...]
    tables: tuple[Holders, ...]
    end: tuple[OptimizerStep, ...]
    memory_bytes: tuple[dict[str, float], ...]
    stages: tuple[tuple[Layer, ...], ...]
    microbatches: int
    expert_group: ExpertGroup | None = None
