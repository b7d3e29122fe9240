"""How the ranks of a pipeline differ in what they do and hold."""

from collections.abc import Iterator
from typing import Literal

from rich.console import Console

from simulator.lower.played import Played
from simulator.tell.exhibits import Column, Exhibit, Stack, Table, words
from simulator.tell.facts import Facts
from simulator.tell.terminal import table


class PipelineRanks(Facts):
    """Time and memory by pipeline rank, of which a result has the mean and the fullest.

    Attributes:
        breakdown_s: seconds of each phase, by rank; they sum to the step on each.
        memory_bytes: total, by rank.
    """

    kind: Literal["pipeline_ranks"] = "pipeline_ranks"
    breakdown_s: dict[str, tuple[float, ...]]
    memory_bytes: tuple[float, ...]

    @classmethod
    def of(cls, played: Played) -> "PipelineRanks":
        """Return what each rank of a pipeline did, mean over pipelines, and holds."""
        program = played.program
        return cls(
            breakdown_s={
                name: tuple(seconds.tolist()) for name, seconds in played.times.phases.items()
            },
            memory_bytes=tuple(sum(terms.values()) for terms in program.memory_bytes),
        )

    def show(self, console: Console) -> None:
        """Print rank 0 of the pipeline, and the ends of all."""
        grid = table(f"{len(self.memory_bytes)} pipeline ranks", "", "rank 0", "least", "most")
        for name, seconds in self.breakdown_s.items():
            if any(seconds):
                ends = (seconds[0], min(seconds), max(seconds))
                grid.add_row(name.replace("_", " "), *(f"{value:.3f} s" for value in ends))
        held = self.memory_bytes
        ends = (held[0], min(held), max(held))
        grid.add_row("memory", *(f"{value / 1e9:.1f} GB" for value in ends))
        console.print(grid)

    def exhibits(self) -> Iterator[Exhibit]:
        """Yield phases and memory of each rank."""
        phases = {name: values for name, values in self.breakdown_s.items() if any(values)}
        yield Stack("Where the time of each pipeline rank goes", "pipeline rank", phases, "s")
        columns = (
            Column("rank", ""),
            *(Column(words(name), "s") for name in phases),
            Column("memory", "bytes"),
        )
        ranks = range(len(self.memory_bytes))
        rows = tuple(zip(ranks, *phases.values(), self.memory_bytes, strict=True))
        yield Table("The same in numbers, and memory", columns, rows)
