"""Traces of a step: valid JSON, every span accounted for, none over another in its thread."""

import json
from collections import defaultdict
from itertools import pairwise

import pytest

from hwmodels.errors import InputError
from simulator.lower.expansion import expand
from simulator.tell.trace import StepTrace
from tests.layer_work import kernels as layer_kernels

RANK = 3


def spans_of(events):
    return [event for event in events if event["ph"] == "X"]


PLAYS = {
    "folded": (),
    "shared": (("communication.nics", "shared"),),
    "explicit": (("ranks.jitter", 0.03), ("ranks.gpu_speed_sigma", 0.015)),
}
"""Folded parts, the segments of one pipeline on shared NICs, all ranks as they are unlike."""


@pytest.fixture(
    scope="module",
    params=[(play, detail) for play in PLAYS for detail in ("parts", "segments", "kernels")],
    ids=" ".join,
)
def traced(request, short_simulated, tmp_path_factory):
    """Detail, the run, number of spans as told, and events of the file, for one rank."""
    play, detail = request.param
    result, played = short_simulated(*PLAYS[play])
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    count = StepTrace(played).to_chrome_trace(path, detail, [RANK])
    document = json.loads(path.read_text(encoding="utf-8"))
    assert result.play.mode == ("explicit" if play == "explicit" else "folded")
    return detail, played, count, document["traceEvents"]


def expected_spans(run, detail):
    """Spans of rank `RANK`: its parts, messages and optimizer; parts opened into tasks and waits,
    and their compute segments into kernels.
    """
    own = [t for t, rank in enumerate(run.pipeline.rank) if rank == RANK]
    if detail == "parts":
        return len(own)
    total = 0
    for task in own:
        index = run.pipeline.step[task]
        if index < 0:
            total += 1
            continue
        step = run.pipeline.program[RANK][index]
        for name, stream, wait_s in opened(run, task):
            total += wait_s > 0
            total += kernels(run, step, name) if detail == "kernels" and stream == "compute" else 1
    return total


def opened(run, number):
    """Name, stream and wait of every task in the chunk of a step."""
    key = run.lowered.keys[run.lowered.part_of_step[number]]
    if run.record() is None:
        timeline = run.parts[key].timeline(run.folded.draw.of_step[number])
        tasks = range(len(timeline.graph))
    else:
        expansion, timeline = expand(run.lowered), run.record().segments
        tasks = range(expansion.begin[number] + 1, expansion.end[number])
    graph = timeline.graph
    for task in tasks:
        stream = graph.streams[graph.stream[task]].rpartition("/")[2]
        waits = timeline.wait_s[task] if graph.collective[task] >= 0 else 0.0
        waits = waits if waits > 1e-9 else 0.0  # a span has nanoseconds
        yield graph.labels[graph.label[task]].partition(" of ")[0], stream, waits


def kernels(run, step, label):
    segment, place = label.split()
    chunk = step.forward if segment.endswith("(F)") else step.backward
    layer = run.program.stages[chunk.stage][int(place)]
    return len(layer_kernels(layer, segment[:-3], segment[-2]))


def test_every_task_has_its_span(traced):
    detail, run, count, events = traced
    assert count == len(spans_of(events)) == expected_spans(run, detail)


def test_no_two_spans_of_a_thread_overlap(traced):
    """In whole nanoseconds, which is what viewers keep."""
    detail, _, _, events = traced
    threads = defaultdict(list)
    for event in spans_of(events):
        start_ns, length_ns = (round(event[key] * 1000) for key in ("ts", "dur"))
        assert length_ns >= 0
        threads[event["pid"], event["tid"]].append((start_ns, start_ns + length_ns))
    assert len(threads) == 2 if detail == "parts" else 3
    for spans in threads.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_processes_and_threads_are_named(traced):
    *_, events = traced
    names = {
        (event["name"], event.get("tid")): event["args"]["name"]
        for event in events
        if event["ph"] == "M"
    }
    assert names == {
        ("process_name", None): f"pipeline rank {RANK}",
        ("thread_name", 0): "compute",
        ("thread_name", 1): "comm",
        ("thread_name", 2): "send",
    }


def test_the_trace_ends_with_the_step(traced):
    """The optimizer of this rank is among the last things to end; all spans lie in the step."""
    _, run, _, events = traced
    ends = {event["name"]: event["ts"] + event["dur"] for event in spans_of(events)}
    optimizer = max(
        run.timeline().end_s[task] for task, rank in enumerate(run.pipeline.rank) if rank == RANK
    )
    assert max(ends.values()) == pytest.approx(optimizer * 1e6, abs=1e-3)
    assert ends["optimizer"] == max(ends.values())
    assert max(ends.values()) <= run.times.step_s * 1e6 + 1e-3


def test_spans_of_ranks_that_were_all_played_are_those_of_the_first_pipeline(short_played):
    """Chunks, messages and optimizer at the first detail, every segment at the second, each where
    and as long as it is in the record; waits are what lies between ready and start.
    """
    run = short_played(*PLAYS["explicit"])
    record, expansion, trace = run.record(), expand(run.lowered), StepTrace(run)
    own = expansion.rank == RANK

    def rows(timeline, tasks):
        graph, columns = timeline.graph, (timeline.start_s, timeline.end_s)
        for task in tasks:
            name = graph.labels[graph.label[task]].partition(" of ")[0]
            yield name, *(round(column[task] * 1e9) for column in columns)

    def written(detail):
        for event in trace.events(detail, [RANK]):
            start_ns, length_ns = (round(event[key] * 1000) for key in ("ts", "dur"))
            yield event["name"], start_ns, start_ns + length_ns

    pipeline = run.pipeline
    whole = [task for task, rank in enumerate(pipeline.rank) if rank == RANK]
    assert list(written("parts")) == list(rows(record.steps, whole))
    parts = [
        task for task in range(len(expansion.graph)) if own[task] and expansion.part[task] >= 0
    ]
    outside = [task for task in whole if pipeline.step[task] < 0]
    found = list(written("segments"))
    waits = [span for span in found if span[0].startswith("wait for ")]
    assert sorted(span for span in found if span not in waits) == sorted(
        [*rows(record.segments, parts), *rows(record.steps, outside)]
    )
    segments = record.segments
    expected = sum(segments.wait_s[task] for task in parts if segments.graph.collective[task] >= 0)
    assert len(waits) > 100
    assert sum(end - start for _, start, end in waits) == pytest.approx(expected * 1e9, rel=1e-4)
    assert run.explicit.wait_s[RANK, 0] == pytest.approx(expected, rel=1e-9)


def test_the_kernels_of_a_segment_fill_it(short_played):
    """In launch order, end to end, from the segment's start to its end."""
    trace = StepTrace(short_played())
    segments = [e for e in trace.events("segments", [RANK]) if e["tid"] == 0]
    opened = [
        e for e in trace.events("kernels", [RANK]) if e["tid"] == 0 and "segment" in e["args"]
    ]
    rest = iter(opened)
    filled = 0
    for segment in (s for s in segments if "(" in s["name"]):
        members = [next(rest)]
        end_ns = round((segment["ts"] + segment["dur"]) * 1000)
        while round((members[-1]["ts"] + members[-1]["dur"]) * 1000) < end_ns:
            members.append(next(rest))
        assert {m["args"]["segment"] for m in members} == {segment["name"]}
        assert members[0]["ts"] == segment["ts"]
        for one, other in pairwise(members):
            assert round((one["ts"] + one["dur"]) * 1000) == round(other["ts"] * 1000)
        filled += 1
    assert next(rest, None) is None
    assert filled > 500


def test_a_whole_trace_holds_every_rank(short_played, tmp_path):
    path = tmp_path / "trace.json"
    run = short_played()
    assert StepTrace(short_played()).to_chrome_trace(path) == len(run.pipeline.graph)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert {event["pid"] for event in spans_of(events)} == set(range(16))


@pytest.mark.parametrize("rank", [-1, 16])
def test_a_rank_that_is_not_there_is_refused(short_played, tmp_path, rank):
    with pytest.raises(InputError, match=f"rank must be from 0 to 15, got {rank}"):
        StepTrace(short_played()).to_chrome_trace(tmp_path / "trace.json", ranks=[0, rank])
