"""Kinds of metrics and facts: each that is registered keeps its promises, and one that nobody has
yet is compared, sampled, written, read, shown and drawn like the rest.
"""

from dataclasses import replace
from io import StringIO
from typing import ClassVar, Literal

import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

from hwmodels.errors import InputError
from simulator.driver.draws import samples
from simulator.driver.run import simulate
from simulator.tell import figures
from simulator.tell.compare import compare
from simulator.tell.facts import Facts, facts_of
from simulator.tell.headlines import UNITS, Headline
from simulator.tell.intervals import intervals
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import Outcome, outcome
from simulator.tell.result import Result
from simulator.tell.summary import show_comparison, show_result


def printed(show, *told):
    console = Console(file=StringIO(), width=200)
    show(console, *told)
    return console.file.getvalue()


# Every kind there is


@pytest.mark.parametrize("kind", sorted(Metrics.kinds))
def test_headlines_of_a_kind_are_numbers_of_it_in_known_units(kind):
    metrics = Metrics.kinds[kind]
    assert metrics.__module__ == f"simulator.tell.metrics.{kind}"
    names = [each.name for each in metrics.headline]
    assert names
    assert len(set(names)) == len(names)
    for each in metrics.headline:
        assert metrics.model_fields[each.name].annotation is float
        assert each.unit in UNITS
        assert each.title
    assert metrics.headline[0].better in ("less", "more")


@pytest.mark.parametrize("kind", sorted(Facts.kinds))
def test_facts_of_a_kind_survive_json_and_show_themselves(kind, short_run):
    facts = Facts.kinds[kind]
    assert facts.__module__ == f"simulator.tell.facts.{kind}"
    result = short_run(*facts.example.items())
    told = result.fact(facts)
    assert told is not None, f"{kind}: its example has none"
    again = Result.from_json(result.to_json()).fact(facts)
    assert again == told
    shown = printed(told.show)
    assert shown.strip()
    assert printed(again.show) == shown
    assert shown in printed(show_result, result)


@pytest.mark.parametrize("kind", sorted(k for k, facts in Facts.kinds.items() if facts.example))
def test_facts_that_need_an_example_are_not_told_without(kind, short_run):
    assert short_run().fact(Facts.kinds[kind]) is None


@pytest.mark.parametrize(
    "odd",
    [
        Headline("requests", "requests", "requests/s"),
        Headline("name", "name", "s"),
        Headline("rate", "rate", "furlongs"),
    ],
)
def test_a_headline_that_is_no_number_or_in_no_unit_is_refused(odd):
    with pytest.raises(TypeError, match=rf"name='{odd.name}'.* must be a float of it, in s, bytes"):

        class Odd(Metrics):
            headline: ClassVar[tuple[Headline, ...]] = (odd,)
            kind: Literal["odd"] = "odd"
            name: str
            rate: float

            @classmethod
            def of(cls, played):
                return cls(name="", rate=played.times.step_s)

    assert "odd" not in Metrics.kinds


# One that nobody has


@pytest.fixture
def throughput():
    """Metrics of a scenario that the simulator does not know, while a test lasts."""

    class Throughput(Metrics):
        """Answers of a server that takes one for each micro-batch."""

        headline: ClassVar[tuple[Headline, ...]] = (
            Headline("requests_per_s", "answered", "requests/s", "more"),
            Headline("latency_s", "time of an answer", "s", "less"),
        )
        kind: Literal["throughput"] = "throughput"
        requests_per_s: float
        latency_s: float

        @classmethod
        def of(cls, played):
            step_s = played.times.step_s
            return cls(requests_per_s=played.program.microbatches / step_s, latency_s=step_s)

    yield Throughput
    del Metrics.kinds["throughput"]


WORDS = {"prefill": "reading prompts", "decode": "writing answers"}
DRAWS = 24


@pytest.fixture
def answered(throughput, drawn_run):
    """Results of that kind: a server so many times as fast, drawn with two uncertain inputs."""
    (uncertainty, experiment, play, provenance) = (
        getattr(drawn_run(), name) for name in ("uncertainty", "experiment", "play", "provenance")
    )
    inputs = np.random.default_rng(0).normal(size=(DRAWS, 2))

    def served(latency_s):
        metrics = throughput(requests_per_s=8 / latency_s, latency_s=latency_s)
        phases_s = {"prefill": np.full(4, 0.25 * latency_s), "decode": np.full(4, 0.75 * latency_s)}
        return Outcome(metrics, phases_s, {"weights": 2e9, "cache": 3e9, "total": 5e9})

    def result(speed):
        step = served(2.0 / speed)
        sampled = samples(served((2 + 0.1 * drawn) / speed) for drawn in inputs[:, 0])
        return Result(
            schema_version=2,
            experiment=experiment,
            metrics=step.metrics,
            phases=WORDS,
            breakdown_s=step.breakdown_s,
            memory_bytes=step.memory_bytes,
            uncertainty=uncertainty,
            intervals=intervals(sampled, [each.path for each in uncertainty.inputs], inputs),
            samples=sampled,
            play=play,
            provenance=provenance,
        )

    return result


def test_a_new_kind_survives_a_json_round_trip(answered, throughput):
    result = answered(1.0)
    again = Result.from_json(result.to_json())
    assert isinstance(again.metrics, throughput)
    assert again == result
    assert again.to_json() == result.to_json()
    assert Result.model_json_schema()["properties"]["metrics"]["oneOf"][-1]["title"] == "Throughput"


def test_draws_of_a_new_kind_have_intervals_and_shares(answered):
    result = answered(1.0)
    assert list(result.intervals) == list(result.samples) == list(result.numbers) == [
        "requests_per_s",
        "latency_s",
        "breakdown_s.prefill",
        "breakdown_s.decode",
        "memory_bytes.total",
    ]  # fmt: skip
    path = result.uncertainty.inputs[0].path
    assert result.intervals["latency_s"].variance_shares[path] > 0.99
    assert result.intervals["memory_bytes.total"].variance_shares == {}


def test_results_of_a_new_kind_are_compared_by_its_headlines(answered):
    before, after = answered(1.0), answered(2.0)
    found = compare(before, after)
    changes = {change.name: (change.before, change.after) for change in found.headline}
    assert changes == {
        "requests_per_s": (4.0, 8.0),
        "latency_s": (2.0, 1.0),
        "memory_bytes.total": (5e9, 5e9),
    }
    assert {change.title: change.difference for change in found.phases} == {
        "reading prompts": -0.25,
        "writing answers": -0.75,
    }
    assert (found.better_share, compare(after, before).better_share) == (1.0, 0.0)
    text = printed(show_comparison, found)
    assert "answered           4 requests/s  8 requests/s  +4 requests/s" in text
    assert "answered is better after in 100% of the draws" in text


def test_a_new_kind_is_shown_and_drawn(answered):
    result = answered(1.0)
    text = printed(show_result, result)
    for words in ("answered", "4 requests/s", "reading prompts", "what makes answered uncertain"):
        assert words in text
    axes = figures.breakdown(result).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 1.5]
    assert "answered 4 requests/s" in axes.get_title()
    plt.close("all")


def test_results_of_two_kinds_are_not_compared(answered, short_run):
    with pytest.raises(InputError, match="must be of one kind, got throughput and training"):
        compare(answered(1.0), short_run())


def test_what_was_played_is_judged_by_its_programs_scenario(throughput, short_played):
    played = short_played()
    lowered = replace(played.lowered, program=replace(played.program, scenario="throughput"))
    columns = replace(played.folded.columns, lowered=lowered)
    served = outcome(
        replace(played, whole=replace(played.whole, folded=columns), folded=columns.of_point(0))
    )
    assert isinstance(served.metrics, throughput)
    assert served.metrics.latency_s == played.times.step_s
    assert served.numbers["breakdown_s.bubble"] == outcome(played).numbers["breakdown_s.bubble"]


def test_facts_are_one_of_a_kind_in_the_order_of_their_names(small_experiment):
    changes = (("cluster.node.chip.hbm_capacity_bytes", "2 TB"), ("ranks.play", "explicit"))
    result, played = simulate(small_experiment(*changes))
    kinds = [facts.kind for facts in result.facts]
    assert (
        kinds == sorted(kinds) == ["critical_path", "kernels", "parts", "pipeline_ranks", "ranks"]
    )
    assert facts_of(played) == result.facts
