"""What single ranks did, where every rank was played."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from rich.console import Console

from hwmodels.spec import Spec
from simulator.lower.explicit import ExplicitPlay
from simulator.lower.played import Played
from simulator.tell.exhibits import Column, Table
from simulator.tell.facts import Facts
from simulator.tell.terminal import table
from workloads.mesh import Mesh
from workloads.phases import IDLE

WAITED_FOR_KEPT, WAITED_FOR_SHOWN = 10, 3


class WaitedFor(Spec):
    """A GPU that others waited for in exchanges.

    Attributes:
        gpu: its rank; pipeline_rank, pipeline: where that sits.
        caused_s: seconds that it cost all others of its group together: waiting for it when it came
            last, and what its slow NIC or NVLink added to their exchanges.
        waiting: the first and the last GPU of its expert group, which are those that waited.
    """

    gpu: int
    pipeline_rank: int
    pipeline: int
    caused_s: float
    waiting: tuple[int, int]


class Ranks(Facts):
    """Where the time of every GPU went; GPU `p dp + d` is pipeline rank p of pipeline d.

    Attributes:
        compute_s, communication_s: work on the two streams, by GPU; they overlap.
        wait_s: waiting for other ranks in exchanges, by GPU.
        bubble_s: neither steps of the pipeline nor optimizer, by GPU.
        caused_s: what this GPU cost the others of its expert group, as in `WaitedFor`.
        waited_for: the GPUs that held the others up most.
        step_s: the step; folded_step_s: the same folded: without spread of GPUs, jitter, stragglers
            and faults that only some ranks feel, and with parts that end together.
    """

    example: ClassVar[Mapping[str, Any]] = {"ranks.play": "explicit"}

    kind: Literal["ranks"] = "ranks"
    compute_s: tuple[float, ...]
    communication_s: tuple[float, ...]
    wait_s: tuple[float, ...]
    bubble_s: tuple[float, ...]
    caused_s: tuple[float, ...]
    waited_for: tuple[WaitedFor, ...]
    step_s: float
    folded_step_s: float

    @classmethod
    def of(cls, played: Played) -> "Ranks | None":
        """Return what every rank did; None where they were folded."""
        play = played.explicit
        if play is None:
            return None
        by_gpu = {
            "compute_s": play.compute_s,
            "communication_s": play.communication_s,
            "wait_s": play.wait_s,
            "bubble_s": play.phase_s[play.phases.index(IDLE)],
            "caused_s": play.blame_s,
        }
        return cls(
            **{name: tuple(seconds.ravel().tolist()) for name, seconds in by_gpu.items()},
            waited_for=tuple(_waited_for(play, played.program.placement.mesh)),
            step_s=play.step_s,
            folded_step_s=played.folded_timeline.makespan_s,
        )

    def show(self, console: Console) -> None:
        """Print how ranks differ, who was waited for, and what the step would be without."""
        grid = table(f"{len(self.compute_s):,} ranks", "", "least", "mean", "most")
        for shown, seconds in self._by_gpu():
            mean = sum(seconds) / len(seconds)
            ends = (min(seconds), mean, max(seconds))
            grid.add_row(shown, *(f"{value:.3f} s" for value in ends))
        console.print(grid)
        for each in self.waited_for[:WAITED_FOR_SHOWN]:
            console.print(
                f"GPU {each.gpu} (pipeline rank {each.pipeline_rank} of pipeline {each.pipeline}) "
                f"cost the others of its group {each.caused_s:.1f} s, all together",
                highlight=False,
            )
        console.print(
            f"were ranks alike, the step would take {self.folded_step_s:.3f} s "
            f"({self.folded_step_s / self.step_s - 1:+.1%})",
            highlight=False,
        )

    def exhibits(self) -> Iterator[Table]:
        """Yield how ranks differ, and who was waited for."""
        ends = ("least", "P10", "mean", "P90", "most")
        rows = []
        for title, seconds in self._by_gpu():
            p10, p90 = np.quantile(seconds, (0.1, 0.9)).tolist()
            mean = sum(seconds) / len(seconds)
            rows.append((title, min(seconds), p10, mean, p90, max(seconds)))
        columns = (Column(""), *(Column(title, "s") for title in ends))
        alike = (
            f"Were ranks alike, the step would take {self.folded_step_s:.3f} s "
            f"({self.folded_step_s / self.step_s - 1:+.1%})."
        )
        yield Table(f"{len(self.compute_s):,} ranks", columns, tuple(rows), alike)
        if self.waited_for:
            yield Table(
                "GPUs that were waited for",
                (
                    *map(Column, ("GPU", "pipeline rank", "pipeline")),
                    Column("cost the others of its group, all together", "s", bars=True),
                ),
                tuple(
                    (*map(str, (each.gpu, each.pipeline_rank, each.pipeline)), each.caused_s)
                    for each in self.waited_for
                ),
            )

    def _by_gpu(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Return seconds by GPU, with words for people."""
        return (
            ("compute", self.compute_s),
            ("communication", self.communication_s),
            ("waiting in exchanges", self.wait_s),
            ("bubble", self.bubble_s),
            ("waiting caused to others", self.caused_s),
        )


def _waited_for(play: ExplicitPlay, mesh: Mesh) -> list[WaitedFor]:
    """Return the GPUs that held the others of their expert group up most, the worst first."""
    caused_s = play.blame_s.ravel()
    groups = mesh.groups("ep")
    worst = np.argsort(-caused_s, kind="stable")[:WAITED_FOR_KEPT]
    worst = worst[caused_s[worst] > 0]
    ranks, pipelines = (place.tolist() for place in np.divmod(worst, play.blame_s.shape[1]))
    members = groups[mesh.group_at(["ep"], worst)]
    rows = zip(worst.tolist(), ranks, pipelines, members, strict=True)
    return [
        WaitedFor(
            gpu=gpu,
            pipeline_rank=rank,
            pipeline=pipeline,
            caused_s=caused_s[gpu],
            waiting=(int(group[0]), int(group[-1])),
        )
        for gpu, rank, pipeline, group in rows
    ]
