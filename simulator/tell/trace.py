"""Traces that open in Perfetto (ui.perfetto.dev) or chrome://tracing: the JSON trace event format.

A process a pipeline rank, a thread a stream. Three levels of detail:

    parts     one span a step, which runs a part, and the messages between ranks
    segments  every part opened into compute segments and exchanges, as rank 0 of its expert
              group saw them (where NICs are shared its slowest rank, where all ranks were played
              that of one pipeline); waiting for slower ranks is a span of its own
    kernels   every compute segment opened into its kernels, in launch order, their prices scaled
              to the segment as played
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from hwmodels.arrays import Floats
from hwmodels.errors import InputError, shown
from simulator.engines.timeline import Timeline
from simulator.lower.expansion import expand
from simulator.lower.played import Played
from simulator.lower.record import PipelineRecord
from workloads.ops import COMM, COMPUTE, SEND
from workloads.steps import Step

Detail = Literal["parts", "segments", "kernels"]
DETAILS: tuple[Detail, ...] = get_args(Detail)
Event = dict[str, Any]
THREADS: dict[str, int] = {COMPUTE: 0, COMM: 1, SEND: 2}
NS = 1e9


class Spans(NamedTuple):
    """Spans of a trace, as columns; times from the start of what they belong to.

    Attributes:
        names: thread and name, as JSON.
        arguments: members of an object, as JSON.
        start_s, end_s: (spans,).
    """

    names: list[str]
    arguments: list[str]
    start_s: Floats
    end_s: Floats


class KernelShare(NamedTuple):
    """One kernel of a segment: begin and end as shares of its time; name and work as JSON."""

    name: str
    begin: float
    end: float
    facts: str


def check_detail(detail: str) -> Detail:
    """Return a level of detail.

    Raises:
        InputError: it is none.
    """
    for known in DETAILS:
        if detail == known:
            return known
    renamed = "; chunks are called parts" if detail == "chunks" else ""
    raise InputError(f"trace: detail must be {', '.join(DETAILS)}, got {shown(detail)}{renamed}")


@dataclass(frozen=True)
class StepTrace:
    """The timeline of one training step, ready to be written.

    Attributes:
        pipeline: which one, where all ranks were played; its timeline was kept.
    """

    played: Played
    pipeline: int = 0
    _folded: dict[tuple[Hashable, int, Detail], Spans] = field(default_factory=dict)
    _kernels: dict[int, list[KernelShare]] = field(default_factory=dict)

    @cached_property
    def _record(self) -> PipelineRecord | None:
        """All that happened in the pipeline, where its segments were played."""
        return self.played.record(self.pipeline)

    def to_chrome_trace(
        self, path: Path | str, detail: Detail = "parts", ranks: Sequence[int] | None = None
    ) -> int:
        """Write the trace, span by span, and return the number of spans.

        Args:
            ranks: pipeline ranks to write, all of them by default.

        Raises:
            InputError: there is no such detail or rank.
        """
        check_detail(detail)
        chosen = self._chosen(ranks)
        count = 0
        with Path(path).open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            file.write(",\n".join(json.dumps(event) for event in _names(chosen)))
            for lines in self.lines(detail, chosen):
                file.writelines(lines)
                count += len(lines)
            file.write("\n]}\n")
        return count

    def events(self, detail: Detail, ranks: Iterable[int]) -> Iterator[Event]:
        """Yield the spans of `ranks` at a level of detail, as a reader of the file gets them."""
        for lines in self.lines(detail, ranks):
            yield from (json.loads(line.lstrip(",\n")) for line in lines)

    def lines(self, detail: Detail, ranks: Iterable[int]) -> Iterator[list[str]]:
        """Yield the spans of `ranks`, task by task, as lines of JSON after a comma each."""
        played, wanted = self.played, set(ranks)
        graph, pipeline = played.pipeline.graph, played.pipeline
        timeline = self._record.steps if self._record else played.timeline(self.pipeline)
        columns = (pipeline.rank, pipeline.step, timeline.start_s, timeline.end_s)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for task, (rank, index, start_s, end_s) in enumerate(rows):
            if rank not in wanted:
                continue
            if index >= 0 and detail != "parts":
                step = pipeline.program[rank][index]
                places = _places(step)
                offset_s = self._begin_s(task, end_s) if self._record is None else 0.0
                yield _lines(rank, self._inside(task, detail), offset_s, places)
            else:
                stream = graph.streams[graph.stream[task]].rpartition("/")[2]
                name = _name(stream, graph.labels[graph.label[task]])
                places = _places(pipeline.program[rank][index]) if index >= 0 else ""
                span = Spans([name], [""], np.array([start_s]), np.array([end_s]))
                yield _lines(rank, span, 0.0, places)

    def _chosen(self, ranks: Sequence[int] | None) -> list[int]:
        count = len(self.played.pipeline.program)
        for rank in ranks or ():
            if not 0 <= rank < count:
                raise InputError(f"trace: rank must be from 0 to {count - 1}, got {rank}")
        return sorted(set(ranks)) if ranks is not None else list(range(count))

    def _key(self, number: int) -> Hashable:
        """Return the key of the part that a step runs."""
        lowered = self.played.lowered
        return lowered.keys[int(lowered.part_of_step[number])]

    def _begin_s(self, number: int, end_s: float) -> float:
        """Return when the ranks of a folded step go on together, after waiting for the last."""
        folded = self.played.folded
        key = self._key(number)
        return end_s - float(folded.parts[key].duration_s[folded.draw.of_step[number]])

    def _inside(self, number: int, detail: Detail) -> Spans:
        """Return what happened inside one step; of a folded one, on its rank 0."""
        played = self.played
        key = self._key(number)
        if self._record is not None:
            expansion = expand(played.lowered)
            tasks = slice(expansion.begin[number] + 1, expansion.end[number])
            return self._opened(key, self._record.segments, tasks, detail)
        draw = int(played.folded.draw.of_step[number])
        if (key, draw, detail) not in self._folded:
            timeline = played.parts[key].timeline(draw)
            tasks = slice(0, len(played.lowered.parts[key].graph.segments))
            self._folded[key, draw, detail] = self._opened(key, timeline, tasks, detail)
        return self._folded[key, draw, detail]

    def _opened(self, key: Hashable, timeline: Timeline, tasks: slice, detail: Detail) -> Spans:
        """Return the spans of some tasks, those of one part."""
        part = self.played.lowered.parts[key]
        spans: list[tuple[str, str, float, float]] = []
        columns = (timeline.ready_s, timeline.start_s, timeline.end_s)
        times = (column[tasks].tolist() for column in columns)
        rows = zip(part.graph.segments, part.row.tolist(), *times, strict=True)
        for segment, row, ready_s, start_s, end_s in rows:
            if segment.comm is not None and start_s > ready_s + 1 / NS:
                wait = _name(segment.stream, f"wait for {segment.label}")
                spans.append((wait, "", ready_s, start_s))
            if detail == "kernels" and segment.stream == COMPUTE:
                length_s, inside = end_s - start_s, f', "segment": "{segment.label}", '
                spans += [
                    (name, inside + facts, start_s + length_s * begin, start_s + length_s * end)
                    for name, begin, end, facts in self._shares(row)
                ]
            else:
                spans.append((_name(segment.stream, str(segment.label)), "", start_s, end_s))
        names, arguments, start, end = zip(*spans, strict=True) if spans else ((), (), (), ())
        return Spans(list(names), list(arguments), np.array(start), np.array(end))

    def _shares(self, row: int) -> list[KernelShare]:
        """Return the kernels of a segment in launch order, at balanced load."""
        if row not in self._kernels:
            segments, prices = self.played.lowered.segments, self.played.folded.prices
            places = segments.places_of_row(row)
            seconds = prices.op_s[0, places]
            whole_s = seconds.sum() or 1.0  # a segment that takes no time has spans of none
            ends = (seconds.cumsum() / whole_s).tolist()
            ops, bounds = segments.of_row(row), prices.bound[places].tolist()
            facts = [
                json.dumps({"flops": float(op.flops), "bytes": float(op.bytes), "bound": bound})
                for op, bound in zip(ops, bounds, strict=True)
            ]
            columns = zip(ops, [0.0, *ends[:-1]], ends, facts, strict=True)
            self._kernels[row] = [
                KernelShare(_name(COMPUTE, op.name), begin, end, known[1:-1])
                for op, begin, end, known in columns
            ]
        return self._kernels[row]


def _names(ranks: Iterable[int]) -> Iterator[Event]:
    for rank in ranks:
        yield {
            "ph": "M",
            "pid": rank,
            "name": "process_name",
            "args": {"name": f"pipeline rank {rank}"},
        }
        for stream, thread in THREADS.items():
            yield {
                "ph": "M",
                "pid": rank,
                "tid": thread,
                "name": "thread_name",
                "args": {"name": stream},
            }


def _places(step: Step) -> str:
    """Where in model and batch a step is, for a span's arguments, as JSON."""
    return json.dumps(step.places)[1:-1]


@cache
def _name(stream: str, name: str) -> str:
    """Thread and name of a span, as JSON."""
    return f'{THREADS[stream]}, "name": {json.dumps(name)}'


def _lines(rank: int, spans: Spans, offset_s: float, places: str) -> list[str]:
    """Return spans as JSON, written by hand: a whole step has hundreds of thousands of them."""
    # Whole nanoseconds, so that spans that meet do not overlap.
    start_ns = np.rint((spans.start_s + offset_s) * NS)
    length_ns = np.rint((spans.end_s + offset_s) * NS) - start_ns
    times = (start_ns / 1000).tolist(), (length_ns / 1000).tolist()
    return [
        f',\n{{"ph": "X", "pid": {rank}, "tid": {name}, "ts": {start_us:.3f}, '
        f'"dur": {length_us:.3f}, "args": {{{places}{arguments}}}}}'
        for name, arguments, start_us, length_us in zip(*spans[:2], *times, strict=True)
    ]
