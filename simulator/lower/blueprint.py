"""A run before any second is known: the distinct chunks, and the pipeline of all steps.

It depends on the model, the plan and the batch only, so that a study which changes prices, loads
or speeds builds it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from simulator.experiment import Experiment
from simulator.lower.parts import ChunkGraph, chunk_graph
from simulator.lower.pipeline import Pipeline, build_pipeline
from simulator.price.segments import SegmentOps, collect_ops
from workloads.chunks import Carrier, chunk_program
from workloads.layers import Layer
from workloads.ops import Op
from workloads.scenarios.training_step import TrainingStep, training_step
from workloads.schedules.step import Chunk, Step, StepKind

ChunkKey = tuple[StepKind, int, int]
"""Kind, forward stage and backward stage (-1 for none): chunks with one key take one time."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkBlueprint:
    """One distinct chunk.

    Attributes:
        kind_of: (tasks,) kind of layer behind each task, as index into `Blueprint.layers`.
        row: (tasks,) row of its kernels in `Blueprint.segments`, -1 for exchanges.
        slot: (tasks,) which of the chunk's expert loads each task meets, -1 for none.
        slots: expert loads it meets: one for each layer with an exchange, forward ones first.
        forward_slots: how many of them belong to the forward chunk.
    """

    graph: ChunkGraph
    kind_of: Ints
    row: Ints
    slot: Ints
    slots: int
    forward_slots: int

    @property
    def is_exchange(self) -> Mask:
        """(tasks,) whether it moves tokens."""
        return self.row < 0


@dataclass(frozen=True, eq=False)
class Blueprint:
    """Everything about a step but its seconds.

    Attributes:
        layers: distinct layers.
        segments: their kernels.
        kinds: of every stage, the kinds of its layers, as indices into `layers`.
        chunks: every distinct chunk.
        keys: keys of `chunks`; `key_of_step` holds indices into them.
        key_of_step: (steps,) numbered rank by rank, as in `pipeline.links`.
    """

    workload: TrainingStep
    layers: tuple[Layer, ...]
    segments: SegmentOps
    kinds: tuple[tuple[int, ...], ...]
    chunks: dict[ChunkKey, ChunkBlueprint]
    keys: tuple[ChunkKey, ...]
    key_of_step: Ints
    pipeline: Pipeline

    @cached_property
    def routed(self) -> tuple[tuple[int, ...], ...]:
        """Places of the layers with an exchange, by stage."""
        return tuple(
            tuple(place for place, kind in enumerate(own) if self.layers[kind].exchange is not None)
            for own in self.kinds
        )

    @cached_property
    def update_ops(self) -> tuple[Op, ...]:
        """Kernels of the optimizer, rank by rank."""
        return tuple(op for step in self.workload.optimizer for op in step.update)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Expert loads that each distinct chunk meets, in the order of `keys`."""
        return tuple(self.chunks[key].slots for key in self.keys)

    @cached_property
    def exchanges(self) -> tuple[tuple[int, Carrier], ...]:
        """Distinct exchanges of a step: kind of layer, and the kernels that carry it."""
        found = {
            (int(chunk.kind_of[task]), segment.carrier): None
            for chunk in self.chunks.values()
            for task, segment in enumerate(chunk.graph.program)
            if segment.is_exchange
        }
        return tuple(found)

    @cached_property
    def exchange_of(self) -> dict[ChunkKey, Ints]:
        """(tasks,) of each distinct chunk: place in `exchanges`, -1 where a task is none."""
        place = {exchange: number for number, exchange in enumerate(self.exchanges)}
        return {
            key: np.array(
                [
                    place[int(kind), segment.carrier] if segment.is_exchange else -1
                    for kind, segment in zip(chunk.kind_of, chunk.graph.program, strict=True)
                ],
                np.int64,
            )
            for key, chunk in self.chunks.items()
        }

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All steps, rank by rank."""
        return tuple(step for own in self.workload.program for step in own)

    @cached_property
    def steps_by_key(self) -> Ints:
        """(keys,) how often each distinct chunk runs in a pipeline."""
        return np.bincount(self.key_of_step, minlength=len(self.keys))

    @cached_property
    def compute_runs(self) -> Floats:
        """(2, ops) how often a pipeline launches each op of `segments` on compute streams: in
        overlapped chunks, and in chunks alone.
        """
        times = np.zeros((2, len(self.segments.row)))
        for key, steps in zip(self.keys, self.steps_by_key.tolist(), strict=True):
            chunk, is_alone = self.chunks[key], int(key[0] != "FB")
            np.add.at(times[is_alone], chunk.row[~chunk.graph.on_comm], float(steps))
        return np.stack([self.segments.launches(each) for each in times])


def blueprint(experiment: Experiment) -> Blueprint:
    """Return the blueprint of an experiment, built at the first call for its plan.

    Raises:
        SpecError, InfeasibleError: as `training_step`.
    """
    cluster, communication = experiment.cluster, experiment.communication
    return _blueprint(
        experiment.model,
        experiment.plan,
        experiment.batch,
        gpus=cluster.gpus,
        gpus_per_node=cluster.node.gpus,
        dispatch=communication.dispatch_format,
        combine=communication.combine_format,
        routed_nodes_max=communication.routed_nodes_max,
    )


@lru_cache(maxsize=8)
def _blueprint(model, plan, batch, **cluster) -> Blueprint:  # type: ignore[no-untyped-def]
    workload = training_step(model, plan, batch, **cluster)
    pipeline = build_pipeline(workload.program, *_joined(workload))
    layers: list[Layer] = []
    kinds = tuple(tuple(_index(layers, layer) for layer in stage) for stage in workload.stages)
    alike = (*(kinds.index(stage) for stage in kinds), -1)  # the last stands for no stage

    def stage_of(chunk: Chunk | None) -> int:
        return alike[chunk.stage if chunk else -1]

    numbers: dict[ChunkKey, int] = {}
    key_of_step = [
        numbers.setdefault((s.kind, stage_of(s.forward), stage_of(s.backward)), len(numbers))
        for own in workload.program
        for s in own
    ]
    halves = {key: [kinds[stage] if stage >= 0 else () for stage in key[1:]] for key in numbers}
    segments = collect_ops(layers)
    chunks = {key: _chunk(key[0], layers, segments, *halves[key]) for key in numbers}
    return Blueprint(
        workload,
        tuple(layers),
        segments,
        kinds,
        chunks,
        tuple(numbers),
        np.array(key_of_step, np.int64),
        pipeline,
    )


def _joined(workload: TrainingStep) -> tuple[list[int], list[int]]:
    """Return for each pipeline rank the number of its home, and of the ranks whose gradients meet:
    those of a home, and of homes that hold the same table.
    """
    numbers = {home: number for number, home in enumerate(workload.homes)}
    meet = list(numbers.values())
    for table in workload.tables:
        joined = {meet[numbers[home]] for home in table.homes}
        meet = [min(joined) if each in joined else each for each in meet]
    home_of = {rank: numbers[home] for home in workload.homes for rank in home.ranks}
    homes = [home_of[rank] for rank in sorted(home_of)]
    return homes, [meet[home] for home in homes]


def _index(layers: list[Layer], layer: Layer) -> int:
    """Return the place of an equal layer in `layers`, appended if there is none."""
    for place, other in enumerate(layers):
        if other is layer or other == layer:
            return place
    layers.append(layer)
    return len(layers) - 1


def _chunk(
    kind: StepKind,
    layers: Sequence[Layer],
    segments: SegmentOps,
    forward: tuple[int, ...],
    backward: tuple[int, ...],
) -> ChunkBlueprint:
    ahead, back = ([layers[kind] for kind in half] for half in (forward, backward))
    program = chunk_program(kind, ahead, back)
    slot_of: dict[tuple[bool, int], int] = {}
    for is_forward, half in ((True, ahead), (False, back)):
        for place, layer in enumerate(half):
            if layer.exchange is not None:
                slot_of[is_forward, place] = len(slot_of)
    places = [(segment.phase == "F", segment.layer) for segment in program]
    kind_of = [(forward if is_forward else backward)[place] for is_forward, place in places]
    return ChunkBlueprint(
        chunk_graph(kind, program),
        kind_of=np.array(kind_of, np.int64),
        row=segments.rows_of(program, kind_of),
        slot=np.array([slot_of.get(place, -1) for place in places], np.int64),
        slots=len(slot_of),
        forward_slots=sum(is_forward for is_forward, _ in slot_of),
    )
