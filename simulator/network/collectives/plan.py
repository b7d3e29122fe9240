"""A plan: what a collective sends, stage after stage, and the steps it cannot do without."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from simulator.network.flows import Flows
from simulator.network.kept import Kept
from simulator.network.traffic import Traffic

PLANS = Kept()

KINDS = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "send_recv")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How a group does a collective.

    Attributes:
        stages: flows for each byte of the collective's size; a stage starts when the one before it
            is over, what is in one is passed on piece by piece.
        in_node_steps, fabric_steps: messages that wait for each other, over NVLink and between
            nodes.
        in_node_messages, fabric_messages: messages that a rank takes up one after another, whether
            they wait for each other or not: the steps of a library's protocols.
        switches: that a step between nodes passes; a mean where steps of a chain differ.
        factor: multiplies the bytes of all stages.
    """

    stages: tuple[Flows, ...]
    in_node_steps: int
    fabric_steps: int
    in_node_messages: int
    fabric_messages: int
    switches: float
    factor: float = 1.0

    @classmethod
    def of(
        cls,
        stages: Iterable[Traffic],
        in_node_steps: int,
        fabric_steps: int,
        in_node_messages: int | None = None,
        chain: bool = False,
    ) -> "Plan":
        """Return the plan of some traffic, each message of which waits for another.

        Args:
            in_node_messages: where more than wait for each other are taken up over NVLink.
            chain: steps between nodes follow each other from node to node; otherwise all are taken
                at once, and the longest way counts.
        """
        stages = tuple(stages)
        passed = np.concatenate([stage.switches_passed() for stage in stages])
        switches = 0.0
        if fabric_steps and passed.size:
            switches = float(passed.mean() if chain else passed.max())
        flows = tuple(stage.flows(equal_messages=True) for stage in stages)
        messages = in_node_steps if in_node_messages is None else in_node_messages
        return cls(flows, in_node_steps, fabric_steps, messages, fabric_steps, switches)

    @property
    def rows(self) -> int:
        """Rows of flows of all stages."""
        return sum(len(flows) for flows in self.stages)

    def at_once(self) -> "Plan":
        """Return the same with no message waiting for another, but for handing over by NVLink."""
        inside, between = min(1, self.in_node_steps), min(1, self.fabric_steps)
        return replace(self, in_node_steps=inside, fabric_steps=between)

    def times(self, factor: float) -> "Plan":
        """Return the same ways with `factor` times the bytes."""
        return replace(self, factor=self.factor * factor)

    def twice(self) -> "Plan":
        """Return the plan done two times, one after the other."""
        return replace(
            self,
            factor=2 * self.factor,
            in_node_steps=2 * self.in_node_steps,
            fabric_steps=2 * self.fabric_steps,
            in_node_messages=2 * self.in_node_messages,
            fabric_messages=2 * self.fabric_messages,
        )
