"""What one step of a pipeline program does on one rank, segment by segment.

A segment is the run of kernels between two points where communication may start, or one exchange.
Kinds, as schedules name them:

    F    forward: attn, dispatch, mlp, combine, layer after layer; exchanges exposed
    Bi   gradient of the inputs only, layers in reverse
    B    full backward: the weight gradients of a half run right after its input gradients,
         before the next exchange may start, as autograd launches them
    W    weight gradients that Bi put off
    FB   a forward and a full backward chunk overlapped (DualPipe): layer by layer

         compute  attn(F)  mlp(B)  mlp(W)  mlp(F)  attn(B)  attn(W)
         comm     combine(B)  dispatch(F)  dispatch(B)  combine(F)

The order of FB is that of DeepSeek's published training trace (deepseek-ai/profile-data @4496024);
where the two chunks differ in length, the longer one's last layers run alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal, NamedTuple

from workloads.layers import Layer, Phase
from workloads.ops import Op
from workloads.schedules.step import StepKind

Stream = Literal["compute", "comm"]
Carrier = Literal["dispatch", "combine"]
COMPUTE: Stream = "compute"
COMM: Stream = "comm"
EXCHANGES = ("dispatch", "combine")

NO_LAYER: tuple[int, Layer | None] = (-1, None)


class Segment(NamedTuple):
    """One entry of a chunk's program.

    Attributes:
        part: `attn`, `mlp`: kernels of that half of a layer; `dispatch`, `combine`: an exchange
            that all ranks of the expert group start together; `layout`: kernels an exchange needs
            first, on its own stream.
        phase: of the pass it belongs to; F is the forward chunk, B and W the backward one.
        layer: place of the layer in its stage.
        after: segments it waits for, besides the one before it in its stream.
    """

    stream: Stream
    part: str
    phase: Phase
    layer: int
    after: tuple[int, ...]

    @property
    def is_exchange(self) -> bool:
        """Whether it moves tokens."""
        return self.part in EXCHANGES

    @property
    def carrier(self) -> Carrier:
        """Kernels that carry an exchange.

        Backward, `combine` runs on dispatch kernels, as gradients go out to the experts, and
        `dispatch` on combine kernels, as they come home.
        """
        goes_out = (self.part == "dispatch") == (self.phase == "F")
        return "dispatch" if goes_out else "combine"

    @property
    def label(self) -> str:
        """Return `attn(F) 2`, `dispatch(B) 0` ..., for people."""
        if self.part == "layout":
            first = "dispatch" if self.phase == "F" else "combine"
            return f"{first}({self.phase}) {self.layer} layout"
        return f"{self.part}({self.phase}) {self.layer}"


def segment_ops(layer: Layer, part: str, phase: Phase) -> tuple[Op, ...]:
    """Return the kernels of a segment in launch order; an exchange has none."""
    if part == "attn":
        return layer.attn.of(phase)
    if part == "mlp":
        return layer.mlp.of(phase)
    if part == "layout" and layer.exchange is not None and phase != "W":
        exchange = layer.exchange
        return exchange.dispatch_glue if phase == "F" else exchange.combine_backward_glue
    return ()


def chunk_program(
    kind: StepKind, forward: Sequence[Layer], backward: Sequence[Layer]
) -> tuple[Segment, ...]:
    """Return the segments of a chunk; streams run theirs in this order.

    Args:
        forward: layers of the forward chunk in model order; empty for Bi, B, W.
        backward: layers of the backward chunk in model order; empty for F.
    """
    program = _Writer()
    if kind == "W":
        for place, layer in reversed(list(enumerate(backward))):
            program.kernels("mlp", "W", place, layer)
            program.kernels("attn", "W", place, layer)
        return tuple(program.segments)
    sent_f: int | None = None  # what the next forward layer waits for
    sent_b: int | None = None  # what the next backward layer waits for
    ahead, back = enumerate(forward), reversed(list(enumerate(backward)))
    for f, b in zip_longest(ahead, back, fillvalue=NO_LAYER):
        sent_f, sent_b = _layer_pair(program, kind, f, b, sent_f, sent_b)
    return tuple(program.segments)


@dataclass(slots=True)
class _Writer:
    """Segments written so far."""

    segments: list[Segment] = field(default_factory=list)

    def kernels(
        self, part: str, phase: Phase, place: int, layer: Layer, after: int | None = None
    ) -> int | None:
        """Append a run of kernels; where there are none, `after` stands for them."""
        if not segment_ops(layer, part, phase):
            return after
        stream = COMM if part == "layout" else COMPUTE
        return self._append(stream, part, phase, place, after)

    def exchange(
        self, part: str, phase: Phase, place: int, layer: Layer, after: int | None
    ) -> int | None:
        """Append an all-to-all, and its layout kernels if it is the first of its pass."""
        if layer.exchange is None:
            return after
        if part == ("dispatch" if phase == "F" else "combine"):
            after = self.kernels("layout", phase, place, layer, after)
        return self._append(COMM, part, phase, place, after)

    def _append(
        self, stream: Stream, part: str, phase: Phase, place: int, after: int | None
    ) -> int:
        waits = () if after is None else (after,)
        self.segments.append(Segment(stream, part, phase, place, waits))
        return len(self.segments) - 1


def _layer_pair(
    program: _Writer,
    kind: StepKind,
    forward: tuple[int, Layer | None],
    backward: tuple[int, Layer | None],
    sent_f: int | None,
    sent_b: int | None,
) -> tuple[int | None, int | None]:
    """Append one forward and one backward layer in the order of the module docstring."""
    (i, f), (j, b) = forward, backward
    here_b = program.exchange("combine", "B", j, b, sent_b) if b else sent_b
    here_f = sent_f
    if f:
        ready = program.kernels("attn", "F", i, f, sent_f)
        here_f = program.exchange("dispatch", "F", i, f, ready)
    if b:
        home_b = program.kernels("mlp", "B", j, b, here_b)
        if kind == "FB":
            program.kernels("mlp", "W", j, b)
        elif kind == "B":
            home_b = program.kernels("mlp", "W", j, b, home_b)
        home_b = program.exchange("dispatch", "B", j, b, home_b)
    if f:
        sent_f = program.kernels("mlp", "F", i, f, here_f)
        sent_f = program.exchange("combine", "F", i, f, sent_f)
    if b:
        sent_b = program.kernels("attn", "B", j, b, home_b)
        if kind == "FB":
            program.kernels("attn", "W", j, b)
        elif kind == "B":
            sent_b = program.kernels("attn", "W", j, b, sent_b)
    return sent_f, sent_b
