"""A program as task graphs without seconds: its distinct parts, and the pipeline of all steps.

It depends on the program only, so that a study which changes prices, loads or speeds builds it
once.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.errors import InfeasibleError
from simulator.lower.parts import PartGraph, part_graph
from simulator.lower.pipeline import Pipeline, build_pipeline
from simulator.price.segments import SegmentOps, collect_ops
from workloads.ops import COMM, COMPUTE, Comm, Op
from workloads.program import Program
from workloads.segments import Part
from workloads.steps import Step


@dataclass(frozen=True, slots=True, eq=False)
class LoweredPart:
    """One distinct part.

    Attributes:
        row: (tasks,) row of its kernels in `Lowered.segments`, -1 for communication.
        load: (tasks,) which of the part's expert loads each task meets, -1 for none.
        loads: expert loads it meets.
    """

    graph: PartGraph
    row: Ints
    load: Ints
    loads: int

    @property
    def is_comm(self) -> Mask:
        """(tasks,) whether ranks communicate."""
        return self.row < 0

    @property
    def is_joined(self) -> bool:
        """Whether exchanges hold its ranks together."""
        return bool(self.is_comm.any())


@dataclass(frozen=True, eq=False)
class Lowered:
    """Everything about a run but its seconds.

    Attributes:
        segments: kernels of all parts.
        parts: every distinct part, by its key.
        keys: keys of `parts`; `part_of_step` holds indices into them.
        part_of_step: (steps,) numbered rank by rank, as in `pipeline.links`.
    """

    program: Program
    segments: SegmentOps
    parts: dict[Hashable, LoweredPart]
    keys: tuple[Hashable, ...]
    part_of_step: Ints
    pipeline: Pipeline

    @cached_property
    def message_pairs(self) -> Ints:
        """(pairs, 2) pipeline ranks that send a message, and those that get it, each pair once."""
        links = self.pipeline.links
        return np.unique(np.stack([links.rank[links.sender], links.receiver], axis=1), axis=0)

    @cached_property
    def end_ops(self) -> tuple[Op, ...]:
        """Kernels of the end of the step, rank by rank."""
        return tuple(op for end in self.program.end for op in end.update)

    @cached_property
    def loads(self) -> tuple[int, ...]:
        """Expert loads that each distinct part meets, in the order of `keys`."""
        return tuple(self.parts[key].loads for key in self.keys)

    @cached_property
    def comms(self) -> tuple[Comm, ...]:
        """Distinct communications of all parts, whatever they are called."""
        found = (s.comm for part in self.parts.values() for s in part.graph.segments)
        return tuple(dict.fromkeys(_nameless(comm) for comm in found if comm is not None))

    @cached_property
    def comm_of(self) -> dict[Hashable, Ints]:
        """(tasks,) of each distinct part: place in `comms`, -1 where a task is none."""
        place = {comm: number for number, comm in enumerate(self.comms)}
        return {
            key: np.array(
                [-1 if s.comm is None else place[_nameless(s.comm)] for s in part.graph.segments],
                np.int64,
            )
            for key, part in self.parts.items()
        }

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All steps, rank by rank."""
        return tuple(step for of_rank in self.program.table.steps for step in of_rank)

    @cached_property
    def steps_of_part(self) -> Ints:
        """(keys,) how often each distinct part runs in a pipeline."""
        return np.bincount(self.part_of_step, minlength=len(self.keys))

    @cached_property
    def tasks_of_parts(self) -> int:
        """Tasks of one rank in all distinct parts, each once."""
        return sum(len(part.row) for part in self.parts.values())

    @cached_property
    def tasks_of_pipeline(self) -> int:
        """Tasks of a pipeline, segment by segment."""
        sizes = [len(part.row) for part in self.parts.values()]
        in_parts = int(np.dot(self.steps_of_part, sizes))
        return in_parts + 2 * len(self.steps) + len(self.pipeline.links.sender)

    @cached_property
    def slots_of_pipeline(self) -> int:
        """Expert loads that a pipeline meets when it is played segment by segment."""
        return int(np.dot(self.steps_of_part, self.loads))

    @cached_property
    def compute_runs(self) -> Floats:
        """(2, ops) how often a pipeline launches each op of `segments` on compute streams: in
        overlapped parts, and in parts alone.
        """
        times = np.zeros((2, len(self.segments.first)))
        for key, steps in zip(self.keys, self.steps_of_part.tolist(), strict=True):
            graph, row = self.parts[key].graph, self.parts[key].row
            is_alone = int(not graph.part.overlapped)
            np.add.at(times[is_alone], row[~graph.on_comm], float(steps))
        return np.stack([self.segments.launches(runs) for runs in times])


@lru_cache(maxsize=8)
def lower(program: Program) -> Lowered:
    """Return a program as graphs, built at the first call."""
    for part in program.parts:
        _check(part)
    segments, rows = collect_ops([part.segments for part in program.parts])
    parts = {
        part.key: LoweredPart(
            part_graph(part),
            row,
            np.array([segment.load for segment in part.segments], np.int64),
            part.loads,
        )
        for part, row in zip(program.parts, rows, strict=True)
    }
    pipeline = build_pipeline(program.table, *_joined(program))
    return Lowered(program, segments, parts, tuple(parts), program.part, pipeline)


def _nameless(comm: Comm) -> Comm:
    return replace(comm, name=comm.kind, beside="")


def _check(part: Part) -> None:
    """Refuse what cannot be priced or played yet.

    Raises:
        InfeasibleError: names the first such segment.
    """
    for segment in part.segments:
        comm = segment.comm
        if comm is None:
            what, fits = "kernels", segment.stream in (COMPUTE, COMM)
        else:
            what = f"{comm.kind} along {' '.join(comm.axes)}"
            needs_load = comm.routed or comm.follows_load
            fits = segment.stream == COMM and (segment.load >= 0 or not needs_load)
            fits = fits and (comm.axes == ("ep",) or not comm.routed)
        if not fits:
            raise InfeasibleError(
                f"{part.name}: {segment.label}: must be kernels on compute or comm, a collective "
                f"on comm, or an expert exchange along ep that meets a load, on comm, got {what} "
                f"on {segment.stream}"
            )


def _joined(program: Program) -> tuple[list[int], list[int]]:
    """Return for each pipeline rank the number of its home, and of the ranks whose gradients meet:
    those of a home, and of homes that hold the same table.
    """
    numbers = {home: number for number, home in enumerate(program.homes)}
    meet = list(numbers.values())
    for table in program.tables:
        joined = {meet[numbers[home]] for home in table.homes}
        meet = [min(joined) if group in joined else group for group in meet]
    home_of = {rank: numbers[home] for home in program.homes for rank in home.ranks}
    homes = [home_of[rank] for rank in sorted(home_of)]
    return homes, [meet[home] for home in homes]
