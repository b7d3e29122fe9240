"""Transformer blocks as lists of kernels: one block a file, for each phase of training.

Phases: F forward, B gradient of the inputs, W gradient of the weights. The lists follow the
kernels that DeepSeek's published training trace runs (deepseek-ai/profile-data @4496024, H800,
EP64), casts, transposes, norms, copies and recomputation included: 28 % of its compute time is
such glue. Op names and phases are those of the trace, so that measured times join to them.

A transformer layer has two blocks: `attn`, at whose end an expert layer dispatches its tokens, and
`mlp`, at whose end they come home.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from hwmodels.formats import FORMATS, NumberFormat
from workloads.model import ModelSpec
from workloads.ops import Comm, Op, Work

Phase = Literal["F", "B", "W"]


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What one micro-batch brings to a rank, and how the experts are spread.

    Attributes:
        sequences, length: of the micro-batch.
        local_experts: routed experts a rank holds.
        gpus_per_token: distinct GPUs one token is sent to, expected.
        dispatch, combine: number formats on the wire.
        saved_attention: format in which the attention output waits for the backward pass.
    """

    model: ModelSpec
    sequences: int
    length: int
    local_experts: int = 0
    gpus_per_token: float = 0.0
    dispatch: NumberFormat = FORMATS["fp8_1x128"]
    combine: NumberFormat = FORMATS["bf16"]
    saved_attention: NumberFormat = FORMATS["e5m6"]

    @property
    def tokens(self) -> int:
        """Tokens of the micro-batch."""
        return self.sequences * self.length


@dataclass(frozen=True, slots=True)
class PhaseOps:
    """The work of a block, by phase, in launch order: kernels, and communication among them.

    `a + b` runs b after a, and their backward passes the other way round.
    """

    forward: tuple[Work, ...] = ()
    backward: tuple[Work, ...] = ()
    weight: tuple[Op, ...] = ()

    def __add__(self, later: "PhaseOps") -> "PhaseOps":
        return PhaseOps(
            self.forward + later.forward,
            later.backward + self.backward,
            later.weight + self.weight,
        )

    def of(self, phase: Phase) -> tuple[Work, ...]:
        """Return the work of one phase."""
        return {"F": self.forward, "B": self.backward, "W": self.weight}[phase]


class Block(NamedTuple):
    """One block of a layer; a layer that lacks it has it without ops."""

    name: str
    ops: PhaseOps = PhaseOps()


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
        saved_bytes: activations kept from the forward to the backward pass.
        logits_bytes: of a head, held only while its micro-batch is in the loss.
    """

    kind: str
    blocks: tuple[Block, ...] = ()
    parameters: Parameters = Parameters()
    tables: tuple[tuple[str, float], ...] = ()
    saved_bytes: float = 0.0
    logits_bytes: float = 0.0

    @cached_property
    def routed(self) -> bool:
        """Whether what a rank gets of it depends on the load of its experts."""
        works = (work for _, ops in self.blocks for work in (*ops.forward, *ops.backward))
        return any(isinstance(work, Comm) and work.routed for work in works)
