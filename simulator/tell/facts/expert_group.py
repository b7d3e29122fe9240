"""How experts lie on the ranks of a group and what those take, where some last as more loaded."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from rich.console import Console

from simulator.lower.played import Played
from simulator.tell.facts import Facts


class ExpertGroups(Facts):
    """Experts on the ranks of an expert group: all groups are alike in what lasts.

    Attributes:
        slots_per_rank: experts that a rank holds on each layer.
        redundant_experts: slots of a layer beyond one for each expert.
        routed_rows: that experts take, of all that are routed to them, rows of padding included;
            dropped_rows: that they do not.
        worst_load: by routed layer, rows of the most loaded rank, of the balanced load, that last.
        peak_bytes: memory of the rank that is fullest under these loads.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "ranks.expert_load.kind": "zipf",
        "ranks.expert_load.exponent": 0.2,
        "ranks.expert_load.correlation": 1.0,
    }

    kind: Literal["expert_group"] = "expert_group"
    slots_per_rank: int
    redundant_experts: int
    routed_rows: float
    dropped_rows: float
    worst_load: tuple[float, ...]
    peak_bytes: float

    @classmethod
    def of(cls, played: Played) -> "ExpertGroups | None":
        """Return how experts lie; None where all is even in the long run."""
        program = played.program
        group = program.expert_group
        if group is None:
            return None
        slots = group.local_experts
        loads = [group.lasting_of(layer).max() for layer in range(program.loads.layers)]
        return cls(
            slots_per_rank=slots,
            redundant_experts=slots * group.ranks - group.experts,
            routed_rows=group.routed,
            dropped_rows=group.dropped,
            worst_load=tuple(np.array(loads).tolist()),
            peak_bytes=max(sum(terms.values()) for terms in program.memory_bytes),
        )

    def show(self, console: Console) -> None:
        """Print slots, the most loaded ranks, what is dropped, and the fullest rank."""
        redundant = f", {self.redundant_experts} redundant ones" if self.redundant_experts else ""
        dropped = f"; {self.dropped_rows:.1%} of rows dropped" if self.dropped_rows else ""
        mean = sum(self.worst_load) / len(self.worst_load)
        console.print(
            f"experts: {self.slots_per_rank} slots a rank{redundant}; most loaded rank of a layer "
            f"{mean:.2f} x balanced, of the worst {max(self.worst_load):.2f} x{dropped}; "
            f"fullest rank {self.peak_bytes / 1e9:.1f} GB",
            highlight=False,
        )
