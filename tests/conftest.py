"""What all tests share: how random inputs are drawn, and where measured data lies."""

import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parents[1]

# Figures are drawn into files; no test opens a window.
os.environ["MPLBACKEND"] = "agg"

# The same examples on every run, and no test is timed. To look further than the suite does:
# pytest --hypothesis-profile=explore tests/properties
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def measured_data() -> Path:
    """Folder of measurements that are not part of this repository; without it the test skips."""
    folder = Path(os.environ.get("MOESIM_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the measured data: set MOESIM_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def v3_step():
    """DeepSeek-V3's step on 2,048 GPUs, 8 a node, split as it was trained: no price, no clock."""
    from hwmodels.formats import FORMATS
    from workloads.batch import BatchSpec
    from workloads.model import MODELS
    from workloads.parallel import ParallelPlan
    from workloads.recipes import recipe
    from workloads.scenarios.training import training_program

    return training_program(
        MODELS.load("deepseek-v3"),
        ParallelPlan(pp=16, ep=64, schedule="dualpipe", layout="3d+1m, 14*4m, 1m+mtp+2heads"),
        BatchSpec(sequences=15360, sequence_length=4096),
        gpus=2048,
        gpus_per_node=8,
        recipe=recipe("fp8-blockwise"),
        dispatch=FORMATS["fp8_1x128"],
        combine=FORMATS["bf16"],
        routed_nodes_max=None,
    )


@pytest.fixture(scope="session")
def small_experiment():
    """DeepSeek-V3 on 64 GPUs, as (path, value) pairs change it: 2 expert groups of 8 on each of 4
    pipeline ranks, 10 micro-batches. It would not fit into their memory, but that is not asked
    before it is played.
    """
    from simulator import Experiment

    def make(*changes):
        plan = {"pp": 4, "ep": 8, "schedule": "dualpipe"}
        values = {"cluster.nodes": 8, "plan": plan, "batch.sequences": 160}
        return Experiment.load("deepseek-v3-pretrain").with_overrides(values | dict(changes))

    return make


@pytest.fixture(scope="session")
def dense_experiment(small_experiment):
    """The same with dense layers only, one GPU an expert group."""
    model = small_experiment().model.model_dump(mode="json", exclude={"moe"})
    model |= {"dense_layers": model["layers"], "mtp_layers": 0}
    plan = {"pp": 4, "ep": 1, "schedule": "dualpipe"}
    return lambda *changes: small_experiment(("model", model), ("plan", plan), *changes)


@pytest.fixture(scope="session")
def published_run():
    """Results of whole experiments by preset name, each played once."""
    from simulator import Experiment, run

    return cache(lambda name: run(Experiment.load(name)))


@pytest.fixture(scope="session")
def short_simulated():
    """Results, and what was played for them, of the pre-training step with 32 micro-batches a
    pipeline, the fewest that DualPipe takes on 16 ranks; called with (path, value) pairs to
    override, each once.
    """
    from simulator import Experiment
    from simulator.driver.run import simulate

    def play(*changes: tuple[str, str | float]):
        values = {"batch.sequences": 4096, **dict(changes)}
        return simulate(Experiment.load("deepseek-v3-pretrain").with_overrides(values))

    return cache(play)


@pytest.fixture(scope="session")
def short_run(short_simulated):
    """Results of that step."""
    return lambda *changes: short_simulated(*changes).result


@pytest.fixture(scope="session")
def short_played(short_simulated):
    """What was played for these results."""
    return lambda *changes: short_simulated(*changes).played


@pytest.fixture(scope="session")
def drawn_run():
    """Results of a quick 1F1B step with 24 draws of two uncertain inputs: a link, and the rate of
    the head; called with (path, value) pairs to override, each once.
    """
    from simulator import Experiment, run

    link = {"value": "44 GB/s", "p10": "38 GB/s", "p90": "47 GB/s", "assumed": "for tests"}
    quick = {
        "plan.schedule": "1f1b",
        "batch.sequences": 2048,
        "ranks.draws": 1,
        "uncertainty.draws": 24,
        "profile.factor": {},
        "profile.site_spread": {},
        "profile.communication.exchange.dispatch_nic_bytes_per_s": link,
    }

    def play(*changes: tuple[str, str | float]):
        return run(Experiment.load("deepseek-v3-pretrain").with_overrides(quick | dict(changes)))

    return cache(play)


@pytest.fixture(scope="session")
def task_graphs():
    """Strategy of random task graphs that can finish, durations in eighths so that sums are exact.

    Events happen in one order: a task on a stream, or a collective on several. A task waits for
    tasks of earlier events only, but tasks are numbered stream by stream, so for later numbers too.
    A graph is drawn as its number of streams, its number of events and a seed.
    """
    import random

    from hypothesis import strategies as st

    from simulator.engines.graph import GraphBuilder

    def graph(streams: int, events: int, seed: int):
        rng = random.Random(seed)
        places = rng.sample(range(streams), streams)
        rows = []
        for event in range(events):
            joined = rng.random() < 0.4
            members = rng.sample(places, rng.randint(1, streams) if joined else 1)
            rows += [(places.index(place), event, joined) for place in members]
        rows.sort()
        builder = GraphBuilder()
        for place, event, joined in rows:
            seconds = rng.randint(0, 24) / 8
            collective = event if joined else -1
            builder.add(f"stream {places[place]}", f"event {event}", seconds, collective=collective)
        for task, (_, event, _) in enumerate(rows):
            earlier = [other for other, (_, when, _) in enumerate(rows) if when < event]
            for other in rng.sample(earlier, min(len(earlier), rng.randint(0, 3))):
                builder.depend(task, other)
        return builder.build()

    return st.builds(graph, st.integers(1, 4), st.integers(1, 14), st.integers(0, 2**32 - 1))


@pytest.fixture
def invoke():
    """Run a command in this process; returns click's result, errors raised."""
    from click.testing import CliRunner

    from simulator import cli

    def call(*arguments):
        return CliRunner().invoke(cli.moesim, [str(a) for a in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def drawn(monkeypatch):
    """Collect what is to be drawn instead of drawing it; one file stands for all."""
    asked = []

    def draw(run, _result, folder):
        asked.append((run, folder))
        return [folder / "pipeline.png"]

    monkeypatch.setattr("simulator.tell.figures.draw_all", draw)
    return asked


@pytest.fixture(scope="session")
def compiled_loops():
    """Small graphs would be played by the loops as they stand until the compiler is loaded."""
    from simulator.engines.loops import compiled

    compiled()
