"""Two results side by side: what was changed, and what it did, phase by phase."""

import numpy as np
import pytest

from simulator.tell.compare import Change, compare
from simulator.tell.facts.parts import Parts
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
    (parts,) = found.facts
    changes = (*found.headline, *found.phases, *parts.changes)
    assert {change.difference for change in changes} == {0}


def test_only_parts_that_both_results_have_are_compared(short_run):
    """1F1B has no pairs: F and B of the same stages remain."""
    one_way = short_run(("plan.schedule", "1f1b"))
    (parts,) = compare(short_run(), one_way).facts
    names = [{part.name for part in r.fact(Parts).parts} for r in (short_run(), one_way)]
    assert parts.kind == "parts"
    assert {change.name for change in parts.changes} == names[0] & names[1]
    assert "F 1" in names[0] & names[1]
    assert not any(change.name.startswith("FB") for change in parts.changes)


def test_a_change_from_nothing_has_no_relative_size():
    assert Change("x", 0.0, 2.0).relative is None
    assert Change("x", 4.0, 5.0).relative == 0.25
    assert Change("x", 4.0, 5.0).difference == 1


# Draws


def spread(comparison, name):
    return next(each for each in comparison.spreads if each.name == name)


def test_a_drawn_result_does_not_differ_from_itself_in_any_draw(drawn_run):
    again = Result.from_json(drawn_run().to_json())
    found = compare(drawn_run(), again)
    for each in found.spreads:
        assert (each.difference.p10, each.difference.median, each.difference.p90) == (0, 0, 0)
        assert each.before == each.after
    assert found.better_share == 0
    assert found.draws == "24 draws from seed 0, compared draw by draw"


def test_draws_are_compared_in_pairs_so_that_common_inputs_cancel(drawn_run):
    """More SMs to communicate with: the difference is surer than either side."""
    before, after = drawn_run(), drawn_run(("communication.sms", 24))
    found = spread(compare(before, after), "step_time_s")
    by_draw = np.subtract(after.samples["step_time_s"], before.samples["step_time_s"])
    expected = np.quantile(by_draw, [0.1, 0.5, 0.9])
    difference = found.difference
    assert [difference.p10, difference.median, difference.p90] == pytest.approx(expected)
    widths = [side.p90 - side.p10 for side in (found.before, found.after, difference)]
    assert widths[2] < min(widths[:2]) / 2


def test_pairs_are_draws_of_one_number_not_of_one_rank(drawn_run):
    """0 to 23 s against 23 to 0 s: half of the differences, -23 to 23 s, below 0."""
    before, after = (
        drawn_run().model_copy(update={"samples": {"step_time_s": steps}})
        for steps in (tuple(map(float, range(24))), tuple(map(float, range(23, -1, -1))))
    )
    found = compare(before, after)
    difference = spread(found, "step_time_s").difference
    assert (difference.p10, difference.median, difference.p90) == pytest.approx((-18.4, 0, 18.4))
    assert found.better_share == 0.5


def test_the_share_of_draws_in_which_the_later_is_faster_is_counted(drawn_run):
    before, after = drawn_run(), drawn_run(("cluster.node.nics", 4), ("cluster.fabric.planes", 4))
    assert compare(before, after).better_share == 0
    assert compare(after, before).better_share == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("uncertainty.seed", 1), "after: 24 draws from seed 1; no pairs"),
        (("uncertainty.draws", 12), "after: 12 draws from seed 0; no pairs"),
        (("uncertainty.draws", 0), "after: no draws; no pairs"),
    ],
)
def test_draws_that_are_no_pairs_are_shown_side_by_side(drawn_run, change, told):
    found = compare(drawn_run(), drawn_run(change))
    step = spread(found, "step_time_s")
    assert step.before is not None
    assert (step.after is None) == (change == ("uncertainty.draws", 0))
    assert step.difference is None
    assert found.better_share is None
    assert told in found.draws


def test_without_draws_nothing_is_said_of_them(short_run):
    found = compare(short_run(), short_run(("ranks.seed", 1)))
    assert (found.spreads, found.better_share, found.draws) == ((), None, "")


def test_parts_of_ranks_played_one_by_one_are_not_compared(short_run):
    (parts,) = compare(short_run(), short_run(("ranks.play", "explicit"))).facts
    assert (parts.changes, parts.none_because) == ((), "not compared: every rank was played")
    (parts,) = compare(short_run(), short_run()).facts
    assert parts.none_because == ""


def test_what_rounding_leaves_is_no_difference():
    assert Change("optimizer", 0.1 + 0.2, 0.3).difference == 0
    assert Change("optimizer", 0.3, 0.3 * (1 + 1e-9)).difference > 0
