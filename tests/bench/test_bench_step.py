"""How fast whole steps are simulated: DeepSeek-V3's on 2,048 and on 102,400 GPUs, folded and every
rank of them.

Counts and steps are asserted, times never. What a step takes includes its prices and its metrics.
"""

import json

import pytest

from simulator import Experiment, run
from simulator.driver.program import program_of
from simulator.driver.step import play
from simulator.engines import array
from simulator.engines.loops import compiled
from simulator.lower.expansion import expand
from simulator.lower.folded_pipeline import FoldedPipeline, pipeline_seconds
from simulator.lower.lowered import lower
from simulator.lower.shared_nics import nic_graph
from simulator.tell.facts.nics import Nics
from simulator.tell.facts.ranks import Ranks
from simulator.tell.trace import StepTrace
from workloads.scenarios.training import training_program

pytestmark = pytest.mark.bench

PIPELINES, RANKS = 128, 16
UNLIKE = {"ranks.jitter": 0.03, "ranks.gpu_speed_sigma": 0.015}
LARGE = {
    "cluster.nodes": 12_800,
    "cluster.fabric.switch_radix": 256,
    "batch.sequences": 768_000,
}
"""Fifty times the GPUs and the batch, so that every pipeline does what it did."""
SPANS_LEAST = 400_000


def experiment(**changes):
    values = {"batch.sequences": 15_360} | changes
    return Experiment.load("deepseek-v3-pretrain").with_overrides(values)


@pytest.fixture(scope="module", autouse=True)
def warm():
    """Machine code is there before anything is timed."""
    compiled()
    run(experiment(**{"batch.sequences": 4096, **UNLIKE}))


@pytest.fixture(scope="module")
def folded():
    return run(experiment())


def forget_plans():
    training_program.cache_clear()
    lower.cache_clear()
    expand.cache_clear()
    nic_graph.cache_clear()


def anew(given):
    """Return a play of an experiment that builds its plan first."""

    def play():
        forget_plans()
        return run(given)

    return play


def count(result):
    """Tasks of a step, how often all of them were played, and how many that is."""
    ranks = result.fact(Ranks)
    if ranks is None:
        return result.play.tasks, 1, result.play.tasks
    tasks = len(expand(lower(program_of(result.resolved()))).graph)
    return tasks, len(ranks.compute_s) // RANKS, result.play.tasks


def test_from_experiment_to_result_folded(table, folded):
    """14 parts on 64 ranks with 8 draws of the load each, and the pipeline of steps."""
    given = experiment()
    first = table.timed("2,048 GPUs folded, plan new", anew(given), count, repeats=3)
    again = table.timed("2,048 GPUs folded, plan kept", lambda: run(given), count, repeats=5)
    assert first.metrics == again.metrics == folded.metrics
    training = play(given)
    tasks = sum(len(part.graph.segments) for part in training.parts.values())
    assert len(training.parts) == 14
    assert again.play.tasks == tasks * 64 * 8 + len(training.pipeline.graph)


def test_the_pipeline_with_other_seconds_only(table, folded):
    """What is left of a step once its parts are known: their seconds put in, played, summed up."""
    training = play(folded.resolved())
    pipeline, columns, seconds = training.pipeline, training.whole.folded, training.whole.taken_s
    tasks, last = len(pipeline.graph), len(pipeline.graph) - RANKS

    def replay():
        message_s, end_s = seconds[pipeline.steps : last], seconds[last:]
        taken_s = pipeline_seconds(columns, message_s, end_s)
        played = array.play_replicas(pipeline.graph, taken_s)
        return FoldedPipeline(columns, played.end_s, taken_s).times(0)

    times = table.timed("pipeline of steps", replay, lambda _: (tasks, 1, tasks), repeats=50)
    assert times.step_s == folded.metrics.step_time_s
    assert {name: float(of.mean()) for name, of in times.phases.items()} == folded.breakdown_s
    # Every micro-batch crosses every boundary between ranks once each way.
    assert tasks == pipeline.steps + 2 * (RANKS - 1) * 120 + RANKS


def test_a_pipeline_whose_nics_are_shared(table, folded):
    """Every segment, message and ring of one pipeline, beside what folded play plays."""
    given = experiment(**{"communication.nics": "shared"})
    first = table.timed("2,048 GPUs, NICs shared, plan new", anew(given), count)
    again = table.timed("2,048 GPUs, NICs shared, plan kept", lambda: run(given), count, repeats=3)
    assert first.metrics == again.metrics
    assert (
        again.fact(Nics).separate_step_s == folded.metrics.step_time_s < again.metrics.step_time_s
    )
    tasks = len(expand(lower(program_of(given))).graph) + 5 * RANKS
    assert again.play.tasks == folded.play.tasks + tasks


def test_faults_that_every_rank_has_to_feel(table, folded):
    """One NIC of 2,048 down: a seventh more on those beside it, in one group of 32."""
    given = experiment(**{"cluster.faults": ["nic:17.2"]})
    found = table.timed("2,048 GPUs explicit, a NIC down", lambda: run(given), count, repeats=2)
    assert (play(given).fabric.exchange > 1).sum() == 1
    assert found.metrics.step_time_s < 8 / 7 * folded.metrics.step_time_s


def test_every_one_of_2048_ranks(table, folded):
    """Jitter of 3 % and speeds 1.5 % apart lengthen the step, by less than a tenth."""
    given = experiment(**UNLIKE)
    first = table.timed("2,048 GPUs explicit, plan new", anew(given), count)
    again = table.timed("2,048 GPUs explicit, plan kept", lambda: run(given), count, repeats=2)
    assert first.metrics == again.metrics
    assert first.fact(Ranks) == again.fact(Ranks)
    explicit, plain = play(given).explicit, folded.metrics.step_time_s
    tasks = len(expand(lower(program_of(given))).graph)
    assert explicit.finish_s.shape == (RANKS, PIPELINES)
    assert explicit.tasks == tasks * PIPELINES > 10_000_000
    assert again.play.tasks == explicit.tasks + folded.play.tasks
    assert plain < again.metrics.step_time_s < 1.1 * plain


def test_102400_gpus_folded_and_rank_by_rank(table, folded):
    """Fifty times the pipelines take what few take, but for rings that are longer."""
    alike = table.timed("102,400 GPUs folded, plan new", anew(experiment(**LARGE)), count)
    given = experiment(**LARGE, **{"ranks.play": "explicit"})
    each = table.timed("102,400 GPUs explicit, plan new", anew(given), count)
    assert (alike.play.ranks, each.play.ranks) == (102_400, 102_400)
    assert alike.metrics.step_time_s == pytest.approx(folded.metrics.step_time_s, rel=0.01)
    tasks = len(expand(lower(program_of(given))).graph) * 50 * PIPELINES
    assert each.play.tasks == tasks + alike.play.tasks
    assert len(each.fact(Ranks).compute_s) == 102_400
    assert each.metrics.step_time_s == pytest.approx(alike.metrics.step_time_s, rel=0.01)
    assert each.fact(Ranks).folded_step_s == alike.metrics.step_time_s


@pytest.mark.parametrize("ranks", ["folded", "explicit"])
def test_a_trace_of_many_spans(table, ranks, tmp_path):
    """Every kernel of some pipeline ranks; the file holds as many spans as told."""
    step = play(experiment() if ranks == "folded" else experiment(**UNLIKE))
    path = tmp_path / "trace.json"
    told = table.timed(
        f"trace of {RANKS} ranks, kernels, {ranks}",
        lambda: StepTrace(step).to_chrome_trace(path, "kernels"),
        lambda spans: (spans, 1, spans),
    )
    assert told >= SPANS_LEAST
    with path.open(encoding="utf-8") as file:
        spans = [event for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
    assert len(spans) == told
    step_us = step.times.step_s * 1e6
    assert max(event["ts"] + event["dur"] for event in spans) == pytest.approx(step_us, abs=2e-3)
