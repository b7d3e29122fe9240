"""Layers: units of a pipeline stage, as blocks of work and sizes."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from workloads.ops import Comm
from workloads.recipes import Passes

ATTN, MLP = "attn", "mlp"
"""Blocks of a layer: attention, at whose end an expert layer dispatches its tokens, and what
follows it, at whose end they come home."""


class Block(NamedTuple):
    """One block of a layer; a layer that lacks it has it without ops."""

    name: str
    ops: Passes = Passes()


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that one rank holds.

    Attributes:
        dense: linear weights and norms every rank of a stage holds.
        tables: embedding and head, likewise, but kept in BF16 only.
        routed: this rank's share of the routed experts.
    """

    dense: float = 0.0
    tables: float = 0.0
    routed: float = 0.0

    @property
    def replicated(self) -> float:
        """What every rank of a stage holds alike."""
        return self.dense + self.tables

    @property
    def linear(self) -> float:
        """All but the tables: weights whose products the recipe writes."""
        return self.dense + self.routed

    @property
    def total(self) -> float:
        """All of them."""
        return self.replicated + self.routed

    def __add__(self, other: "Parameters") -> "Parameters":
        return Parameters(
            self.dense + other.dense, self.tables + other.tables, self.routed + other.routed
        )


@dataclass(frozen=True)
class Layer:
    """One unit of a pipeline stage: a transformer layer, an embedding or a head.

    Attributes:
        kind: `dense`, `moe`, `mtp`, `head` or `embedding`.
        blocks: in forward order.
        parameters: of its own.
        tables: name and size of weights that layers may share (embedding, head); a rank holds each
            once, whichever of its layers use it, in BF16 only.
        logits_bytes: of a head, held only while its micro-batch is in the loss.
        exchanged_bytes: what its experts get of a dispatch and hand to a combine, at balanced load.
    """

    kind: str
    blocks: tuple[Block, ...] = ()
    parameters: Parameters = Parameters()
    tables: tuple[tuple[str, float], ...] = ()
    logits_bytes: float = 0.0
    exchanged_bytes: float = 0.0

    @cached_property
    def saved_bytes(self) -> float:
        """Activations kept from the forward to the backward pass."""
        return sum(ops.saved_bytes for _, ops in self.blocks)

    @cached_property
    def routed_bytes(self) -> float:
        """Of these, what grows with the load of a rank's experts."""
        return sum(ops.routed_bytes for _, ops in self.blocks)

    @cached_property
    def routed(self) -> bool:
        """Whether what a rank gets of it depends on the load of its experts."""
        works = (work for _, ops in self.blocks for work in (*ops.forward, *ops.backward))
        return any(isinstance(work, Comm) and work.routed for work in works)
