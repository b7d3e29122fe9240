"""Which kernels the compute time of a pipeline goes to."""

from collections.abc import Callable, Iterator
from typing import Literal

from rich.console import Console

from simulator.lower.played import Played
from simulator.price.segments import OpSeconds
from simulator.tell.exhibits import Column, Table, words
from simulator.tell.facts import Facts

FAMILIES_SHOWN = 8


class Kernels(Facts):
    """Compute time by kernel family.

    Attributes:
        compute_share: of all compute seconds of a pipeline, by kernel family, largest first.
    """

    kind: Literal["kernels"] = "kernels"
    compute_share: dict[str, float]

    @classmethod
    def of(cls, played: Played) -> "Kernels":
        """Return the shares of what was played, at balanced load."""
        return cls(compute_share=shares(played, lambda timed_op: timed_op.op.family))

    def show(self, console: Console) -> None:
        """Print the largest shares."""
        largest = list(self.compute_share.items())[:FAMILIES_SHOWN]
        shown = ", ".join(f"{family.replace('_', ' ')} {share:.0%}" for family, share in largest)
        hidden = len(self.compute_share) - len(largest)
        console.print(f"compute time: {shown}, {hidden} more families", highlight=False)

    def exhibits(self) -> Iterator[Table]:
        """Yield every family with its share."""
        columns = (Column("kernels"), Column("of compute time", "share", bars=True))
        rows = tuple((words(name), share) for name, share in self.compute_share.items())
        yield Table("Compute time of a pipeline by family of kernels", columns, rows)


def shares(played: Played, key: Callable[[OpSeconds], str]) -> dict[str, float]:
    """Return shares of the compute time of a pipeline by `key`, the largest first."""
    total: dict[str, float] = {}
    for timed_op in played.op_seconds:
        total[key(timed_op)] = total.get(key(timed_op), 0.0) + timed_op.seconds
    whole = sum(total.values())
    ordered = sorted(total.items(), key=lambda item: -item[1])
    return {name: seconds / whole for name, seconds in ordered}
