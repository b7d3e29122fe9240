"""What differs between two results: the inputs that changed, headline numbers, phase by phase.

Where both were drawn equally often from one seed, draw i of one is compared with draw i of the
other: the inputs they share have the same sampled values there (`simulator.uncertainty`), so that
an uncertainty common to both does not blur their difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwmodels.errors import InputError
from simulator.tell.facts import Compared
from simulator.tell.headlines import MEMORY, Headline
from simulator.tell.intervals import quantiles
from simulator.tell.outcome import phase_path
from simulator.tell.result import Result, Uncertainty

ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity in both results.

    Attributes:
        before, after: numbers, but anything for inputs.
        title: words for people; unit: of `UNITS`; both empty for inputs.
    """

    name: str
    before: Any
    after: Any
    title: str = ""
    unit: str = ""

    @property
    def difference(self) -> float:
        """After minus before; what is left of rounding counts as none."""
        difference = float(self.after - self.before)
        return 0.0 if abs(difference) <= ROUNDING * abs(self.before) else difference

    @property
    def relative(self) -> float | None:
        """Difference relative to before; None where that is zero."""
        return self.difference / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class Range:
    """P10, median and P90 over draws."""

    p10: float
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How sure one number of both results is, by its dotted path; None where it was not sampled.

    Attributes:
        title, unit: as of a `Change`.
        difference: after minus before, draw by draw; None where the draws are no pairs.
    """

    name: str
    title: str
    unit: str
    before: Range | None
    after: Range | None
    difference: Range | None


@dataclass(frozen=True, slots=True)
class ComparedFacts:
    """What facts of one kind have to compare, as far as both results have it.

    Attributes:
        none_because: why nothing is compared; empty where something is.
    """

    kind: str
    title: str
    changes: tuple[Change, ...]
    none_because: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes:
        inputs: values of the resolved experiments that differ, by dotted path.
        headline: headline numbers of their kind, the decisive one first, and memory.
        phases: seconds of the mean rank; their differences sum to that of the step.
        facts: what facts of both have to compare.
        spreads: of headline numbers and phases; empty where neither result was sampled.
        better_share: share of the draws in which the later has the better decisive number; None
            without pairs.
        draws: how both were sampled, and whether their draws are pairs.
    """

    inputs: tuple[Change, ...]
    headline: tuple[Change, ...]
    phases: tuple[Change, ...]
    facts: tuple[ComparedFacts, ...]
    spreads: tuple[Spread, ...]
    better_share: float | None
    draws: str


def compare(before: Result, after: Result) -> Comparison:
    """Explain the difference of two results.

    Raises:
        InputError: they are of different kinds.
    """
    kinds = before.metrics.kind, after.metrics.kind
    if kinds[0] != kinds[1]:
        raise InputError(f"compare: results must be of one kind, got {kinds[0]} and {kinds[1]}")
    told = {each.name: each for each in (*before.headlines, *after.headlines)}
    a, b = before.numbers, after.numbers
    changes = {
        name: Change(name, a.get(name, 0.0), b.get(name, 0.0), each.title, each.unit)
        for name, each in told.items()
    }
    headline = [each.name for each in (*before.metrics.headline, MEMORY)]
    phases = dict.fromkeys(phase_path(name) for name in before.phases | after.phases)
    paired = _are_pairs(before, after)
    return Comparison(
        inputs=tuple(_changed(before.experiment, after.experiment)),
        headline=tuple(changes[name] for name in headline),
        phases=tuple(changes[name] for name in phases),
        facts=tuple(_facts(before, after)),
        spreads=tuple(_spreads(before, after, told, paired)),
        better_share=_better_share(before, after) if paired else None,
        draws=_how_drawn(before, after, paired),
    )


def _facts(before: Result, after: Result) -> Iterator[ComparedFacts]:
    """Yield what facts of each kind that both results have are compared by."""
    later = {facts.kind: facts.compared() for facts in after.facts}
    for facts in before.facts:
        a, b = facts.compared(), later.get(facts.kind)
        if a is not None and b is not None:
            reason = a.none_because or b.none_because
            changes = () if reason else tuple(_common(a, b))
            yield ComparedFacts(facts.kind, a.title, changes, reason)


def _common(before: Compared, after: Compared) -> Iterator[Change]:
    """Yield the seconds that both have."""
    for name, seconds in before.seconds.items():
        if name in after.seconds:
            yield Change(name, seconds, after.seconds[name], name, "s")


def _are_pairs(before: Result, after: Result) -> bool:
    """Whether draw by draw both met the same samples and, where they may, the same chance."""
    a, b = before.uncertainty, after.uncertainty
    if a is None or b is None or before.provenance.seed != after.provenance.seed:
        return False
    return (a.draws, a.seed) == (b.draws, b.seed)


def _spreads(
    before: Result, after: Result, told: dict[str, Headline], paired: bool
) -> Iterator[Spread]:
    """Yield the spread of every number that either result keeps by draw."""
    for name in dict.fromkeys([*before.samples, *after.samples]):
        a, b = before.samples.get(name), after.samples.get(name)
        yield Spread(
            name,
            told[name].title,
            told[name].unit,
            Range(*quantiles(a)) if a else None,
            Range(*quantiles(b)) if b else None,
            Range(*quantiles(np.subtract(b, a))) if paired and a and b else None,
        )


def _better_share(before: Result, after: Result) -> float | None:
    """Return in which share of the draws the decisive number is better after than before."""
    decisive = before.metrics.headline[0]
    if decisive.better is None:
        return None
    a, b = (np.array(result.samples[decisive.name]) for result in (before, after))
    return float(np.mean(b < a if decisive.better == "less" else b > a))


def _how_drawn(before: Result, after: Result, paired: bool) -> str:
    """Return one line on the draws; empty where there are none."""
    a, b = before.uncertainty, after.uncertainty
    if a is None and b is None:
        return ""
    if paired:
        return f"{_drawn(a)}, compared draw by draw"
    seeds = f"; ranks.seed {before.provenance.seed} and {after.provenance.seed}"
    seeds = seeds if before.provenance.seed != after.provenance.seed else ""
    return (
        f"before: {_drawn(a)}; after: {_drawn(b)}{seeds}; no pairs, so no spread of the difference"
    )


def _drawn(sampled: Uncertainty | None) -> str:
    return f"{sampled.draws} draws from seed {sampled.seed}" if sampled else "no draws"


def _changed(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Yield the leaves in which two documents differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _changed(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield Change(path, _named(before), _named(after))


def _named(value: Any) -> Any:
    """A whole preset stands for itself by name."""
    return value.get("name", value) if isinstance(value, dict) else value
