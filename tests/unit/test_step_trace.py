"""Traces of a step: valid JSON, every span accounted for, none over another in its thread."""

import json
from collections import defaultdict
from itertools import pairwise

import pytest

from hwmodels.errors import InputError

RANK = 3


def spans_of(events):
    return [event for event in events if event["ph"] == "X"]


@pytest.fixture(scope="module", params=["chunks", "segments", "kernels"])
def traced(request, short_run, tmp_path_factory):
    """Detail, number of spans as told, and events of the file, for one rank."""
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    count = short_run().timeline().to_chrome_trace(path, request.param, [RANK])
    document = json.loads(path.read_text(encoding="utf-8"))
    return request.param, count, document["traceEvents"]


def expected_spans(run, detail):
    """Spans of rank `RANK`: its chunks, messages and optimizer; chunks opened into tasks and waits,
    and their compute segments into kernels.
    """
    own = [t for t, rank in enumerate(run.pipeline.rank) if rank == RANK]
    if detail == "chunks":
        return len(own)
    total = 0
    for task in own:
        index = run.pipeline.step[task]
        if index < 0:
            total += 1
            continue
        step = run.pipeline.program[RANK][index]
        key = run.blueprint.keys[run.blueprint.key_of_step[task]]
        timeline = run.chunks[key].timeline(run.folded.draw_of_step[task])
        graph, tasks = timeline.graph, len(timeline.graph) // run.chunks[key].ranks
        total += int((timeline.wait_s[:tasks] > 0).sum())
        for part in range(tasks):
            on_compute = graph.streams[graph.stream[part]].endswith("compute")
            opened = detail == "kernels" and on_compute
            total += kernels(run, step, graph.labels[graph.label[part]]) if opened else 1
    return total


def kernels(run, step, label):
    segment, place = label.split()
    chunk = step.forward if segment.endswith("(F)") else step.backward
    layer = run.workload.stages[chunk.stage][int(place)]
    return len(getattr(layer, segment[:-3]).of(segment[-2]))


def test_every_task_has_its_span(traced, short_run):
    detail, count, events = traced
    assert count == len(spans_of(events)) == expected_spans(short_run().training_run(), detail)


def test_no_two_spans_of_a_thread_overlap(traced):
    """In whole nanoseconds, which is what viewers keep."""
    _, _, events = traced
    threads = defaultdict(list)
    for event in spans_of(events):
        start_ns, length_ns = (round(event[key] * 1000) for key in ("ts", "dur"))
        assert length_ns >= 0
        threads[event["pid"], event["tid"]].append((start_ns, start_ns + length_ns))
    assert len(threads) == 2 if traced[0] == "chunks" else 3
    for spans in threads.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


def test_processes_and_threads_are_named(traced):
    _, _, events = traced
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


def test_the_trace_ends_with_the_step(traced, short_run):
    """The optimizer of this rank is among the last things to end; all spans lie in the step."""
    _, _, events = traced
    run = short_run().training_run()
    ends = {event["name"]: event["ts"] + event["dur"] for event in spans_of(events)}
    optimizer = max(
        run.timeline.end_s[task] for task, rank in enumerate(run.pipeline.rank) if rank == RANK
    )
    assert max(ends.values()) == pytest.approx(optimizer * 1e6, abs=1e-3)
    assert ends["optimizer"] == max(ends.values())


def test_the_kernels_of_a_segment_fill_it(short_run):
    """In launch order, end to end, from the segment's start to its end."""
    trace = short_run().timeline()
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


def test_a_whole_trace_holds_every_rank(short_run, tmp_path):
    path = tmp_path / "trace.json"
    run = short_run().training_run()
    assert short_run().timeline().to_chrome_trace(path) == len(run.pipeline.graph)
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert {event["pid"] for event in spans_of(events)} == set(range(16))


@pytest.mark.parametrize("rank", [-1, 16])
def test_a_rank_that_is_not_there_is_refused(short_run, tmp_path, rank):
    with pytest.raises(InputError, match=f"rank must be from 0 to 15, got {rank}"):
        short_run().timeline().to_chrome_trace(tmp_path / "trace.json", ranks=[0, rank])
