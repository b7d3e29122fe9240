"""Shared NICs as an experiment asks for them, and what a result tells of them."""

import io

import pytest
from rich.console import Console

from simulator.driver.run import run
from simulator.driver.step import play
from simulator.tell.facts.nics import Nics
from simulator.tell.result import Result
from simulator.tell.summary import show_result
from tests.refusals import MPFT, refusal

ROOM = ("cluster.node.chip.hbm_capacity_bytes", "2 TB")
NICS = ("communication.nics", "shared")


@pytest.fixture(scope="module")
def results(short_run):
    """A step on separate and on shared NICs."""
    return short_run(), short_run(NICS)


def printed(result):
    console = Console(file=io.StringIO(), width=200)
    show_result(console, result)
    return console.file.getvalue()


def test_nics_are_separate_unless_asked_for(results):
    separate, shared = results
    assert MPFT.communication.nics == "separate"
    assert separate.fact(Nics) is None
    assert play(separate.resolved()).shared is None
    assert shared.fact(Nics) is not None
    assert "meeting on NICs" not in printed(separate)


def test_a_result_tells_how_far_shared_and_separate_nics_are_apart(results):
    separate, shared = results
    step_s, before_s = shared.metrics.step_time_s, separate.metrics.step_time_s
    nics = shared.fact(Nics)
    assert (nics.step_s, nics.separate_step_s) == (step_s, before_s)
    assert step_s > before_s
    assert (
        f"meeting on NICs: step {step_s / before_s - 1:+.1%} ({before_s:.2f} -> {step_s:.2f} s)"
        in printed(shared)
    )
    assert shared.play.mode == "folded"
    assert shared.play.tasks > separate.play.tasks
    assert "to meet on shared NICs" in shared.provenance.folding


def test_the_step_and_its_phases_are_those_of_the_shared_play(results):
    _, shared = results
    training, step_s = play(shared.resolved()), shared.metrics.step_time_s
    assert step_s == training.shared.record.steps.makespan_s
    assert sum(shared.breakdown_s.values()) == pytest.approx(step_s, rel=1e-12)
    assert training.timeline() is training.shared.record.steps
    assert training.record() is training.shared.record


def test_every_kind_of_traffic_is_told_of(results):
    """Messages: one out of each chunk but the last of a pipeline, so as many seconds as bytes."""
    _, shared = results
    training = play(shared.resolved())
    nics = shared.fact(Nics)
    assert list(nics.busy_s) == ["expert exchanges", "pipeline messages", "gradient rings"]
    assert list(nics.delay_s) == list(nics.busy_s)
    assert min(nics.delay_s.values()) >= 0
    assert nics.delay_s["pipeline messages"] > 0
    messages, pp = len(training.pipeline.links.sender), len(training.pipeline.program)
    one_s = training.program.message.size_bytes / 44e9  # a NIC's rate of plain messages
    assert nics.busy_s["pipeline messages"] == pytest.approx(messages / pp * one_s)


def test_a_result_with_shared_nics_survives_the_round_trip(results):
    _, shared = results
    read = Result.from_json(shared.to_json())
    assert read.model_dump() == shared.model_dump()
    assert read.resolved().communication.nics == "shared"


def test_another_way_to_treat_nics_is_refused():
    assert "communication.nics: input should be 'separate' or 'shared', got 'one'" in str(
        refusal({"communication.nics": "one"})
    )


def test_folding_is_checked_on_nics_as_they_are(small_experiment):
    """All ranks alike: folded play of what meets is within a thousandth of playing every rank."""
    changes = (NICS, ("plan.ep", 16), ("cluster.node.chip.hbm_capacity_bytes", "2 TB"))
    found = run(small_experiment(*changes), check_folding=True)
    every_rank = run(small_experiment(*changes, ("ranks.play", "explicit")))
    expected = found.metrics.step_time_s / every_rank.metrics.step_time_s - 1
    assert found.play.folding_error == pytest.approx(expected, rel=1e-9)
    assert 0 < abs(found.play.folding_error) < 2e-3


def test_draws_meet_on_nics_too(drawn_run):
    separate, shared = drawn_run(), drawn_run(NICS)
    assert shared.uncertainty == separate.uncertainty
    steps = zip(shared.samples["step_time_s"], separate.samples["step_time_s"], strict=True)
    assert all(together > apart for together, apart in steps)


def test_draws_in_which_every_rank_is_played_meet_on_nics_too(small_experiment):
    jitter = {"value": 0.0, "p10": 0.0, "p90": 0.02, "source": "a test"}
    changes = ("ranks.jitter", jitter), ("uncertainty.draws", 3), ("plan.ep", 16), ROOM
    shared, separate = (
        run(small_experiment(*changes, ("communication.nics", nics)))
        for nics in ("shared", "separate")
    )
    steps = zip(shared.samples["step_time_s"], separate.samples["step_time_s"], strict=True)
    assert all(together > apart for together, apart in steps)


def test_the_command_line_prints_and_writes_the_shared_play(invoke, tmp_path, drawn):
    arguments = ("--set", "batch.sequences=4096", "--set", "communication.nics=shared")
    found = invoke("run", "deepseek-v3-pretrain", *arguments, "--out", tmp_path)
    assert found.exit_code == 0
    assert "meeting on NICs: step +" in found.output
    [(training, _)] = drawn
    result = Result.load(tmp_path)
    assert result.fact(Nics) is not None
    assert training.timeline().makespan_s == result.metrics.step_time_s
