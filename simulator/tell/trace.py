"""Traces that open in Perfetto (ui.perfetto.dev) or chrome://tracing: the JSON trace event format.

A process a pipeline rank, a thread a stream. Three levels of detail:

    chunks    one span a chunk, and the messages between ranks
    segments  every chunk opened into compute segments and exchanges, as rank 0 of its expert
              group saw them; waiting for slower ranks is a span of its own
    kernels   every compute segment opened into its kernels, in launch order, their prices scaled
              to the segment as played
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hwmodels.errors import InputError
from simulator.play.chunk import COMM, COMPUTE, ChunkPlay
from simulator.play.pipeline import SEND
from simulator.training import TrainingRun
from workloads.schedules.step import Step

Detail = Literal["chunks", "segments", "kernels"]
Event = dict[str, Any]
THREADS = {COMPUTE: 0, COMM: 1, SEND: 2}
US = 1e6


class KernelShare(NamedTuple):
    """One kernel of a segment: begin and end as shares of the segment's time, and its work."""

    name: str
    begin: float
    end: float
    flops: float
    bytes: float
    bound: str


@dataclass(frozen=True)
class StepTrace:
    """The timeline of one training step, ready to be written."""

    run: TrainingRun
    _memo: dict[tuple[int, int, str], list[KernelShare]] = field(default_factory=dict)

    def to_chrome_trace(
        self, path: Path | str, detail: Detail = "chunks", ranks: Sequence[int] | None = None
    ) -> int:
        """Write the trace and return its number of spans.

        Args:
            ranks: pipeline ranks to write, all of them by default.

        Raises:
            InputError: there is no such rank.
        """
        chosen = self._chosen(ranks)
        count = 0
        with Path(path).open("w", encoding="utf-8") as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [\n')
            file.write(",\n".join(json.dumps(event) for event in _names(chosen)))
            for event in self.events(detail, chosen):
                file.write(",\n" + json.dumps(event))
                count += 1
            file.write("\n]}\n")
        return count

    def events(self, detail: Detail, ranks: Iterable[int]) -> Iterator[Event]:
        """Yield the spans of `ranks` at a level of detail."""
        run, wanted = self.run, set(ranks)
        graph, timeline = run.pipeline.graph, run.timeline
        for task, (rank, index) in enumerate(
            zip(run.pipeline.rank, run.pipeline.step, strict=True)
        ):
            if rank not in wanted:
                continue
            start_s, end_s = float(timeline.start_s[task]), float(timeline.end_s[task])
            stream = graph.streams[graph.stream[task]].rpartition("/")[2]
            if index >= 0 and detail != "chunks":
                step = run.pipeline.program[rank][index]
                chunk = run.played[step]
                yield from self._opened(rank, step, chunk, start_s, detail)
            else:
                name = graph.labels[graph.label[task]]
                arguments = _places(run.pipeline.program[rank][index]) if index >= 0 else {}
                yield _span(rank, stream, name, start_s, end_s, **arguments)

    def _chosen(self, ranks: Sequence[int] | None) -> list[int]:
        count = len(self.run.pipeline.program)
        for rank in ranks or ():
            if not 0 <= rank < count:
                raise InputError(f"trace: rank must be from 0 to {count - 1}, got {rank}")
        return sorted(set(ranks)) if ranks is not None else list(range(count))

    def _opened(
        self, rank: int, step: Step, chunk: ChunkPlay, offset_s: float, detail: Detail
    ) -> Iterator[Event]:
        """Yield what rank 0 of the expert group did inside one chunk."""
        graph, timeline = chunk.timeline.graph, chunk.timeline
        for task in range(len(graph) // chunk.ranks):
            stream = graph.streams[graph.stream[task]].rpartition("/")[2]
            label = graph.labels[graph.label[task]]
            ready_s, start_s, end_s = (
                offset_s + float(column[task])
                for column in (timeline.ready_s, timeline.start_s, timeline.end_s)
            )
            if start_s > ready_s:
                yield _span(rank, stream, f"wait for {label}", ready_s, start_s)
            if detail == "kernels" and stream == COMPUTE:
                yield from self._kernels(rank, step, label, start_s, end_s)
            else:
                yield _span(rank, stream, label, start_s, end_s, **_places(step))

    def _kernels(
        self, rank: int, step: Step, label: str, start_s: float, end_s: float
    ) -> Iterator[Event]:
        segment, _, place = label.partition(" ")
        chunk = step.forward if segment.endswith("(F)") else step.backward
        assert chunk is not None, "a segment belongs to one of the step's chunks"
        length_s = end_s - start_s
        for kernel in self._shares(chunk.stage, int(place), segment):
            begin_s, until_s = start_s + length_s * kernel.begin, start_s + length_s * kernel.end
            facts = {"segment": label, "stage": chunk.stage, "microbatch": chunk.microbatch}
            facts |= {"flops": kernel.flops, "bytes": kernel.bytes, "bound": kernel.bound}
            yield _span(rank, COMPUTE, kernel.name, begin_s, until_s, **facts)

    def _shares(self, stage: int, place: int, segment: str) -> list[KernelShare]:
        """Return the kernels of a segment in launch order, at balanced load."""
        key = stage, place, segment
        if key not in self._memo:
            half, phase = segment[:-3], segment[-2]
            ops = getattr(self.run.workload.stages[stage][place], half).of(phase)
            costs = self.run.pricer.kernels.price(ops)
            seconds = costs.duration_s[:, 0] + costs.gap_s
            ends = (seconds.cumsum() / seconds.sum()).tolist()
            begins, names = [0.0, *ends[:-1]], [op.name for op in ops]
            work = (costs.flops.tolist(), costs.bytes.tolist(), costs.bound.tolist())
            rows = zip(names, begins, ends, *work, strict=True)
            self._memo[key] = [KernelShare(*row) for row in rows]
        return self._memo[key]


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


def _places(step: Step) -> dict[str, object]:
    """Stage and micro-batch of each chunk of a step, for a span's arguments."""
    chunks = {"forward": step.forward, "backward": step.backward}
    return {name: chunk._asdict() for name, chunk in chunks.items() if chunk}


def _span(
    rank: int, stream: str, name: str, start_s: float, end_s: float, **arguments: object
) -> Event:
    # Both ends are rounded to nanoseconds, so that spans that meet do not overlap.
    start_us, end_us = round(start_s * US, 3), round(end_s * US, 3)
    event: Event = {
        "ph": "X",
        "pid": rank,
        "tid": THREADS[stream],
        "name": name,
        "ts": start_us,
        "dur": round(end_us - start_us, 3),
    }
    return event | ({"args": arguments} if arguments else {})
