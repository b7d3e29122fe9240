"""Steps of a schedule as parts: what each kind does, once for all stages that are alike."""

from collections.abc import Sequence

import numpy as np

from hwmodels.arrays import Ints
from workloads.layers import Layer
from workloads.program import LoadTable
from workloads.schedules.step import Step as TrainingStep
from workloads.schedules.step import StepKind
from workloads.segments import Part, Segment
from workloads.steps import KINDS, StepTable
from workloads.weave import Weaver, WeightGradients

PartKey = tuple[StepKind, int, int]
"""Kind, forward stage and backward stage, -1 for none."""

WEIGHT_GRADIENTS: dict[StepKind, WeightGradients] = {
    "F": "put off",
    "B": "awaited",
    "Bi": "put off",
    "FB": "beside",
}


def distinct_parts(
    table: StepTable[TrainingStep], stages: Sequence[Sequence[Layer]]
) -> tuple[tuple[Part, ...], Ints]:
    """Return the distinct parts of all steps, and the part of each: stages alike share theirs."""
    first_alike = np.array([*alike_stages(stages), -1])  # the last stands for no stage
    forward, backward = (first_alike[way[:, 0]] for way in (table.forward, table.backward))
    code = (table.kind * len(first_alike) + forward + 1) * len(first_alike) + backward + 1
    _, step, place = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(step)  # parts are numbered as steps come to them
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    columns = (table.kind, forward, backward)
    keys = zip(*(column[step[order]].tolist() for column in columns), strict=True)
    weaver = Weaver()
    parts = tuple(part_of((KINDS[kind], *of_stage), stages, weaver) for kind, *of_stage in keys)
    return parts, number[place]


def alike_stages(stages: Sequence[Sequence[Layer]]) -> list[int]:
    """Return for each stage the first one that does the same."""
    return [next(n for n, other in enumerate(stages) if _same(stage, other)) for stage in stages]


def part_of(key: PartKey, stages: Sequence[Sequence[Layer]], weaver: Weaver) -> Part:
    """Return what a step of a kind does on its stages."""
    kind, *of_stage = key
    forward, backward = (stages[stage] if stage >= 0 else () for stage in of_stage)
    words = [
        f"{word} of stage {stage}"
        for word, stage in zip(("forward", "backward"), of_stage, strict=True)
        if stage >= 0
    ]
    return Part(
        key,
        kind,
        f"{kind} {'|'.join(str(stage) for stage in of_stage if stage >= 0)}",
        " overlapped with ".join(words),
        step_segments(kind, forward, backward, weaver),
        loads=sum(layer.routed for layer in (*forward, *backward)),
        overlapped=kind == "FB",
    )


def step_segments(
    kind: StepKind, forward: Sequence[Layer], backward: Sequence[Layer], weaver: Weaver
) -> tuple[Segment, ...]:
    """Return what a step of this kind does on a stage that goes forward and one that goes back."""
    if kind == "W":
        return weaver.weight_gradients(backward)
    return weaver.weave(forward, backward, WEIGHT_GRADIENTS[kind])


def _same(stage: Sequence[Layer], other: Sequence[Layer]) -> bool:
    """Return whether two stages do the same."""
    pairs = zip(stage, other, strict=False)
    return len(stage) == len(other) and all(one is two or one == two for one, two in pairs)


def load_table(
    table: StepTable[TrainingStep],
    stages: Sequence[Sequence[Layer]],
    parts: Sequence[Part],
    part: Ints,
    microbatches: int,
) -> LoadTable:
    """Number all expert loads: stage by stage, micro-batch by micro-batch, layer by layer."""
    routed = np.array([sum(layer.routed for layer in stage) for stage in stages])
    first_layer = np.concatenate(([0], np.cumsum(routed)))
    home = np.zeros((len(routed), microbatches), np.int64)
    goes = table.forward[:, 0] >= 0
    home[tuple(table.forward[goes].T)] = table.rank[goes]
    rank = [np.repeat(home[stage], count) for stage, count in enumerate(routed.tolist())]
    layer = [
        np.tile(first_layer[stage] + np.arange(count), microbatches)
        for stage, count in enumerate(routed.tolist())
    ]
    base, count = np.append(first_layer[:-1] * microbatches, 0), np.append(routed, 0)

    def of_chunks(chunks: Ints) -> Ints:
        """Return (chunks, routed layers) loads of chunks whose stages have equally many."""
        layers = count[chunks[0, 0]]
        return np.asarray((base[chunks[:, 0]] + layers * chunks[:, 1])[:, None] + np.arange(layers))

    met = [
        np.concatenate(
            [of_chunks(chunks[part == number]) for chunks in (table.forward, table.backward)],
            axis=1,
        )
        for number in range(len(parts))
    ]
    return LoadTable(np.concatenate(rank), np.concatenate(layer), int(first_layer[-1]), tuple(met))
