"""What differs between two results: the inputs that changed, and the step phase by phase."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulator.tell.result import Result


@dataclass(frozen=True, slots=True)
class Change:
    """One quantity in both results; `values` are numbers for metrics, anything for inputs."""

    name: str
    before: Any
    after: Any

    @property
    def difference(self) -> float:
        """After minus before."""
        return float(self.after - self.before)

    @property
    def relative(self) -> float | None:
        """Difference relative to before; None where that is zero."""
        return self.difference / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results side by side.

    Attributes:
        inputs: values of the resolved experiments that differ, by dotted path.
        headline: step time, tokens a day, MFU, memory.
        phases: seconds of the mean rank; their differences sum to that of the step.
        chunks: duration of each distinct chunk both results have.
    """

    inputs: tuple[Change, ...]
    headline: tuple[Change, ...]
    phases: tuple[Change, ...]
    chunks: tuple[Change, ...]


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
    later = {chunk.name: chunk.duration_s for chunk in b.chunks}
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
    )


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
