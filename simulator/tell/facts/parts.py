"""The distinct parts of a program, each as it was played on a whole expert group."""

from collections.abc import Iterator
from typing import Literal

from rich.console import Console

from hwmodels.spec import Spec
from simulator.lower.played import Played
from simulator.tell.exhibits import Column, Table
from simulator.tell.facts import Compared, Facts


class PartTimes(Spec):
    """One distinct part; means over the draws of its load.

    Attributes:
        name: kind and stages, such as `FB 1|1`.
        duration_s: until the slowest rank is done.
        compute_s, communication_s: mean over ranks, work only.
        mean_wait_s: mean wait of a rank for the others, per exchange.
    """

    name: str
    duration_s: float
    compute_s: float
    communication_s: float
    mean_wait_s: float


class Parts(Facts):
    """Every distinct part, always as folded: GPUs alike, no jitter, nothing else on their NICs.

    Attributes:
        every_rank: all ranks were played beside, so that the step is not made of these.
    """

    kind: Literal["parts"] = "parts"
    every_rank: bool
    parts: tuple[PartTimes, ...]

    @classmethod
    def of(cls, played: Played) -> "Parts":
        """Return the parts of what was played."""
        names = [part.graph.part.name for part in played.lowered.parts.values()]
        means = (column.tolist() for column in played.folded.means)
        parts = tuple(
            PartTimes(
                name=name,
                duration_s=duration_s,
                compute_s=compute_s,
                communication_s=communication_s,
                mean_wait_s=wait_s,
            )
            for name, duration_s, compute_s, communication_s, wait_s in zip(
                names, *means, strict=True
            )
        )
        return cls(every_rank=played.explicit is not None, parts=parts)

    def __getitem__(self, name: str) -> PartTimes:
        """Return the part of a name.

        Raises:
            KeyError: there is none.
        """
        return {part.name: part for part in self.parts}[name]

    def show(self, console: Console) -> None:
        """Print how many there are, and the longest."""
        longest = max(self.parts, key=lambda part: part.duration_s)
        console.print(
            f"{len(self.parts)} distinct parts, the longest {longest.name}: "
            f"{longest.duration_s * 1e3:.1f} ms, {longest.compute_s * 1e3:.1f} ms of compute and "
            f"{longest.communication_s * 1e3:.1f} ms of communication",
            highlight=False,
        )

    def exhibits(self) -> Iterator[Table]:
        """Yield every part, the longest first."""
        titles = ("until the slowest rank is done", "compute", "communication", "wait an exchange")
        rows = tuple(
            (part.name, part.duration_s, part.compute_s, part.communication_s, part.mean_wait_s)
            for part in sorted(self.parts, key=lambda part: -part.duration_s)
        )
        note = "Kind, forward stage|backward stage. Compute and communication overlap."
        if self.every_rank:
            note += " As folded; the step is made of every rank's own."
        columns = (Column("part"), *(Column(title, "s") for title in titles))
        yield Table("Distinct parts, means over ranks and loads", columns, rows, note)

    def compared(self) -> Compared:
        """Return the duration of each part; none says anything of ranks played one by one."""
        title = "parts: kind, forward stage|backward stage"
        if self.every_rank:
            return Compared(title, {}, "not compared: every rank was played")
        return Compared(title, {part.name: part.duration_s for part in self.parts})
