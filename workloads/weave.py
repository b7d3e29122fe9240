"""Passes of layers as segments: one after another, or two of them woven.

A pass works in turns. A turn is a run of kernels of one block, and the communication that follows
it; a block without kernels has its turn and does nothing. Two passes side by side take turns, layer
by layer: what the later one sends before any kernel goes first, then the earlier pass computes
while that is under way, and so on, so that each hides what the other sends. Of a layer with experts
this gives DualPipe's order, that of DeepSeek's published training trace (deepseek-ai/profile-data
@4496024):

    compute  attn(F)  mlp(B)  mlp(W)  mlp(F)  attn(B)  attn(W)
    comm     combine(B)  dispatch(F)  dispatch(B)  combine(F)

Where the two differ in length, the longer one's last layers run alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Literal

from workloads.layers import Layer, Phase
from workloads.ops import COMPUTE, Comm, Stream, Work
from workloads.segments import Label, Segment

WeightGradients = Literal["put off", "awaited", "beside"]
"""Of a backward pass: not run; run before anything is sent on, as autograd launches them; or run
while what is sent on is under way."""


@dataclass(slots=True)
class Turn:
    """Kernels of one block, and what is sent after them.

    Attributes:
        weight: kernels of the block's weight gradients, once its input gradients are done.
        sent: communication, and kernels that it needs first.
    """

    block: str = ""
    kernels: tuple[Work, ...] = ()
    weight: tuple[Work, ...] = ()
    sent: tuple[Work, ...] = ()


def turns_of(layer: Layer, phase: Phase) -> list[Turn]:
    """Return the turns of one pass of a layer; the first is what it sends before any kernel."""
    turns = [Turn()]
    for block in layer.blocks if phase == "F" else reversed(layer.blocks):
        before = len(turns)
        for computes, run in groupby(block.ops.of(phase), lambda work: work.stream == COMPUTE):
            if computes:
                turns.append(Turn(block.name, tuple(run)))
            else:
                turns[-1].sent += tuple(run)
        if len(turns) == before:
            turns.append(Turn(block.name))
        if phase == "B":
            turns[-1].weight = block.ops.weight
    return turns


class Weaver:
    """Writes the segments of parts; runs of kernels of one layer are the same tuple in all."""

    def __init__(self) -> None:
        self._turns: dict[tuple[int, Phase], list[Turn]] = {}
        self._layers: list[Layer] = []  # as long as their identity names their turns

    def weave(
        self,
        ahead: Sequence[Layer],
        back: Sequence[Layer],
        weight: WeightGradients = "awaited",
    ) -> tuple[Segment, ...]:
        """Return a forward pass of `ahead`, a backward pass of `back`, or the two woven.

        Args:
            ahead, back: layers in model order; their expert loads are numbered in this order.
            weight: what becomes of the weight gradients of `back`.
        """
        written: list[Segment] = []
        forward = _Pass("F", written, _loads(ahead))
        backward = _Pass("B", written, _loads(back, sum(layer.routed for layer in ahead)), weight)
        places = zip_longest(range(len(ahead)), reversed(range(len(back))))
        for one, other in places:
            mine = [] if one is None else self._turns_of(ahead[one], "F")
            theirs = [] if other is None else self._turns_of(back[other], "B")
            forward.layer, backward.layer = one or 0, other or 0
            for turn in theirs[:1]:
                backward.take(turn)
            for turn in mine[:1]:
                forward.take(turn)
            for turn, their_turn in zip_longest(mine[1:], theirs[1:], fillvalue=Turn()):
                forward.take(turn)
                backward.take(their_turn)
        return tuple(written)

    def weight_gradients(self, back: Sequence[Layer]) -> tuple[Segment, ...]:
        """Return the weight gradients that a backward pass of `back` put off."""
        written: list[Segment] = []
        late = _Pass("W", written, _loads(back))
        for late.layer, layer in reversed(list(enumerate(back))):
            for turn in self._turns_of(layer, "B"):
                late.run("W", turn.block, turn.weight, awaited=False)
        return tuple(written)

    def _turns_of(self, layer: Layer, phase: Phase) -> list[Turn]:
        name = id(layer), phase
        if name not in self._turns:
            self._turns[name] = turns_of(layer, phase)
            self._layers.append(layer)
        return self._turns[name]


def _loads(layers: Sequence[Layer], first: int = 0) -> list[int]:
    """Return the number of the expert load that each layer meets, from `first` on; -1 for none."""
    numbers = iter(range(first, first + len(layers)))
    return [next(numbers) if layer.routed else -1 for layer in layers]


@dataclass(slots=True)
class _Pass:
    """One pass that is being written.

    Attributes:
        loads: by layer.
        layer: place of the one that is at work.
        last: what the next segment of the pass waits for.
    """

    phase: Phase
    written: list[Segment]
    loads: list[int]
    weight: WeightGradients = "put off"
    layer: int = 0
    last: int | None = None

    def take(self, turn: Turn) -> None:
        """Write a turn."""
        self.run(self.phase, turn.block, turn.kernels)
        if self.weight != "put off":
            self.run("W", turn.block, turn.weight, awaited=self.weight == "awaited")
        first: list[Work] = []  # kernels that the next communication needs
        for work in turn.sent:
            if not isinstance(work, Comm):
                first.append(work)
                continue
            label = Label(work.name, self.phase, self.layer)
            if first:
                self._append(work.stream, tuple(first), label._replace(note="layout"))
                first = []
            self._append(work.stream, (work,), label)
        assert not first, "kernels on the stream of a communication come before one"

    def run(
        self, phase: Phase, block: str, kernels: tuple[Work, ...], *, awaited: bool = True
    ) -> None:
        """Write a run of kernels, if there are any.

        Args:
            awaited: whether it waits for what the pass did before, and what comes next for it.
        """
        if kernels:
            self._append(COMPUTE, kernels, Label(block, phase, self.layer), awaited=awaited)

    def _append(
        self, stream: Stream, work: tuple[Work, ...], label: Label, *, awaited: bool = True
    ) -> None:
        after = (self.last,) if awaited and self.last is not None else ()
        self.written.append(Segment(stream, work, after, label, self.loads[self.layer]))
        if awaited:
            self.last = len(self.written) - 1
