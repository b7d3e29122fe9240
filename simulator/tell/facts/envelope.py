"""Which kernels were priced outside the sizes that their profile was fitted to.

A profile prices any size, so that a run is not refused for one; that no row was near is said here.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from rich.console import Console

from hwmodels.identity import Same
from hwmodels.profile import Range
from hwmodels.spec import Spec
from simulator.lower.played import Played
from simulator.tell.facts import Facts
from workloads.ops import Op
from workloads.shapes import cost_shape

FAMILIES_SHOWN = 8


class OutsideFamily(Spec):
    """Kernels of one family that have a size below the least or above the most measured.

    Attributes:
        family: as the profile calls it.
        compute_share: of all compute seconds of a pipeline that such kernels take.
        example: the farthest of them.
        size: keyword of the family's cost function that is farthest outside, and its value there.
        least, most: of that size in the rows that the constants of the family come from.
    """

    family: str
    compute_share: float
    example: str
    size: str
    value: float
    least: float
    most: float


class Envelope(Facts):
    """Kernels priced outside the sizes that their profile was fitted to, at balanced load.

    A family of which the profile says no sizes is not among them.

    Attributes:
        outside: by family, those that take longest first.
    """

    example: ClassVar[Mapping[str, Any]] = {"profile": "h200-trtllm"}

    kind: Literal["envelope"] = "envelope"
    outside: tuple[OutsideFamily, ...]

    @classmethod
    def of(cls, played: Played) -> "Envelope | None":
        """Return the families priced outside; None of none."""
        profile = played.experiment.profile
        if profile is None or not profile.envelope:
            return None
        families: dict[str, list[tuple[float, Excess]]] = {}
        excesses = _excesses(Same(profile), Same(played.lowered.segments.ops))
        for timed_op, excess in zip(played.op_seconds, excesses, strict=True):
            if excess is not None:
                families.setdefault(timed_op.op.family, []).append((timed_op.seconds, excess))
        whole_s = sum(timed_op.seconds for timed_op in played.op_seconds)
        outside = []
        for family, found in families.items():
            share = sum(seconds for seconds, _ in found) / whole_s if whole_s else 0.0
            farthest = max((excess for _, excess in found), key=lambda excess: excess.times)
            told = OutsideFamily(family=family, compute_share=share, **farthest._asdict())
            outside.append(told)
        outside.sort(key=lambda told: -told.compute_share)
        return cls(outside=tuple(outside)) if outside else None

    def show(self, console: Console) -> None:
        """Print those that take longest, each with what is farthest outside."""
        for each in self.outside[:FAMILIES_SHOWN]:
            least, most = f"{each.least:,.6g}", f"{each.most:,.6g}"
            rows = f"{least} to {most}" if least != most else least
            console.print(
                f"{each.compute_share:.0%} of compute time is {each.family.replace('_', ' ')} "
                f"outside the rows that its constants come from: {each.example} has {each.size} "
                f"{each.value:,.6g}, they have {rows}",
                highlight=False,
            )
        hidden = self.outside[FAMILIES_SHOWN:]
        if hidden:
            share = sum(each.compute_share for each in hidden)
            console.print(f"{share:.0%} of {len(hidden)} more families likewise", highlight=False)


class Excess(NamedTuple):
    """How far the size of an op that is farthest outside is; attributes as of `OutsideFamily`."""

    example: str
    size: str
    value: float
    least: float
    most: float

    @property
    def times(self) -> float:
        """Value over the most or least over the value: above 1 outside."""
        above = self.value > self.most
        large, small = (self.value, self.most) if above else (self.least, self.value)
        return large / small if small else np.inf


@lru_cache(maxsize=16)
def _excesses(profile: Same, ops: Same) -> list[Excess | None]:
    """Return of each op how far it is outside; None inside, or where the profile says no sizes."""
    return [_excess(op, profile.value.fitted_sizes(op.family)) for op in ops.value]


def _excess(op: Op, sizes: Mapping[str, Range]) -> Excess | None:
    outside = list(_outside(op, sizes)) if sizes else []
    return max(outside, key=lambda excess: excess.times, default=None)


def _outside(op: Op, sizes: Mapping[str, Range]) -> Iterator[Excess]:
    """Yield the sizes of an op that lie outside their range."""
    shape = cost_shape([op], np.ones(1))
    for size in sizes.keys() & shape.keys():
        (value,), (least, most) = np.ravel(shape[size]).tolist(), sizes[size]
        if not least <= value <= most:
            yield Excess(op.name, size, float(value), least, most)
