"""What differs between two results: the inputs that changed, and the step phase by phase.

Where both were drawn equally often from one seed, draw i of one is compared with draw i of the
other: the inputs they share have the same sampled values there (`simulator.uncertainty`), so that
an uncertainty common to both does not blur their difference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.tell.intervals import quantiles
from simulator.tell.result import Result, Uncertainty

ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity in both results; `values` are numbers for metrics, anything for inputs."""

    name: str
    before: Any
    after: Any

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
        difference: after minus before, draw by draw; None where the draws are no pairs.
    """

    name: str
    before: Range | None
    after: Range | None
    difference: Range | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes:
        inputs: values of the resolved experiments that differ, by dotted path.
        headline: step time, tokens a day, MFU, memory.
        phases: seconds of the mean rank; their differences sum to that of the step.
        chunks: duration of each distinct chunk both results have.
        chunks_not_compared: why there are none, where ranks were played one by one.
        spreads: of headline numbers and phases; empty where neither result was sampled.
        faster_share: share of the draws in which the later step is shorter; None without pairs.
        draws: how both were sampled, and whether their draws are pairs.
    """

    inputs: tuple[Change, ...]
    headline: tuple[Change, ...]
    phases: tuple[Change, ...]
    chunks: tuple[Change, ...]
    chunks_not_compared: str
    spreads: tuple[Spread, ...]
    faster_share: float | None
    draws: str


def compare(before: Result, after: Result) -> Comparison:
    """Explain the difference of two results."""
    a, b = before.metrics, after.metrics
    headline = (
        Change("step_time_s", a.step_time_s, b.step_time_s),
        Change("tokens_per_day", a.tokens_per_day, b.tokens_per_day),
        Change("mfu_causal", a.mfu_causal, b.mfu_causal),
        Change("memory_bytes", a.memory_bytes["total"], b.memory_bytes["total"]),
    )
    names = [*a.breakdown_s, *(name for name in b.breakdown_s if name not in a.breakdown_s)]
    # Chunks told are folded ones, which say nothing of a step of which every rank was played.
    folded = before.ranks is None and after.ranks is None
    later = {chunk.name: chunk.duration_s for chunk in b.chunks} if folded else {}
    paired = _are_pairs(before, after)
    return Comparison(
        inputs=tuple(_changed(before.experiment, after.experiment)),
        headline=headline,
        phases=tuple(
            Change(n, a.breakdown_s.get(n, 0.0), b.breakdown_s.get(n, 0.0)) for n in names
        ),
        chunks=tuple(
            Change(chunk.name, chunk.duration_s, later[chunk.name])
            for chunk in a.chunks
            if chunk.name in later
        ),
        chunks_not_compared="" if folded else "not compared: every rank was played",
        spreads=tuple(_spreads(before, after, paired)),
        faster_share=_faster_share(before, after) if paired else None,
        draws=_how_drawn(before, after, paired),
    )


def _are_pairs(before: Result, after: Result) -> bool:
    """Whether draw by draw both met the same samples and, where they may, the same chance."""
    a, b = before.uncertainty, after.uncertainty
    if a is None or b is None or before.provenance.seed != after.provenance.seed:
        return False
    return (a.draws, a.seed) == (b.draws, b.seed)


def _spreads(before: Result, after: Result, paired: bool) -> Iterator[Spread]:
    """Yield the spread of every number that either result keeps by draw."""
    for name in dict.fromkeys([*before.samples, *after.samples]):
        a, b = before.samples.get(name), after.samples.get(name)
        both = Range(*quantiles(np.subtract(b, a))) if paired and a and b else None
        yield Spread(
            name, Range(*quantiles(a)) if a else None, Range(*quantiles(b)) if b else None, both
        )


def _faster_share(before: Result, after: Result) -> float:
    a, b = (np.array(result.samples["step_time_s"]) for result in (before, after))
    return float(np.mean(b < a))


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
