"""Two results side by side: what was changed, and what it did, phase by phase."""

import pytest

from simulator.tell.compare import Change, compare
from simulator.tell.result import Result


def test_the_phases_explain_the_whole_difference_of_the_step(short_run):
    before, after = short_run(), short_run(("cluster.node.chip", "h100"))
    found = compare(before, after)
    step = next(change for change in found.headline if change.name == "step_time_s")
    assert step.difference == after.metrics.step_time_s - before.metrics.step_time_s != 0
    explained = sum(change.difference for change in found.phases)
    assert explained == pytest.approx(step.difference, rel=1e-9)


def test_the_inputs_that_differ_are_named_by_path(short_run):
    found = compare(short_run(), short_run(("ranks.seed", 1)))
    assert found.inputs == (Change("ranks.seed", 0, 1),)
    chip = compare(short_run(), short_run(("cluster.node.chip", "h100"))).inputs
    named = {change.name: (change.before, change.after) for change in chip}
    assert named == {
        "cluster.node.chip.name": ("h800", "h100"),
        "cluster.node.chip.nvlink_bytes_per_s": (200e9, 450e9),
    }


def test_a_result_does_not_differ_from_itself(short_run):
    again = Result.from_json(short_run().to_json())
    found = compare(short_run(), again)
    assert found.inputs == ()
    changes = (*found.headline, *found.phases, *found.chunks)
    assert {change.difference for change in changes} == {0}


def test_only_chunks_that_both_results_have_are_compared(short_run):
    """1F1B has no pairs: F and B of the same stages remain."""
    one_way = short_run(("plan.schedule", "1f1b"))
    found = compare(short_run(), one_way)
    names = [{chunk.name for chunk in r.metrics.chunks} for r in (short_run(), one_way)]
    assert {change.name for change in found.chunks} == names[0] & names[1]
    assert "F 1" in names[0] & names[1]
    assert not any(change.name.startswith("FB") for change in found.chunks)


def test_a_change_from_nothing_has_no_relative_size():
    assert Change("x", 0.0, 2.0).relative is None
    assert Change("x", 4.0, 5.0).relative == 0.25
    assert Change("x", 4.0, 5.0).difference == 1
