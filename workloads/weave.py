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

A communication may run beside kernels of its own pass (`workloads.ops.Beside`): what shards of a
ring attention pass on while the core computes, what tensor-parallel ranks gather or reduce while
gradients of weights are multiplied.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby, zip_longest
from typing import Literal

from hwmodels.errors import InfeasibleError
from workloads.layers import Layer
from workloads.ops import COMPUTE, Comm, Stream, Work
from workloads.recipes import Phase
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

    @property
    def hides_weights(self) -> bool:
        """Whether weight gradients run while what it sends is under way."""
        return any(isinstance(work, Comm) and work.beside == "weights" for work in self.sent)


def turns_of(layer: Layer, phase: Phase) -> list[Turn]:
    """Return the turns of one pass of a layer; the first is what it sends before any kernel.

    Raises:
        InfeasibleError: a kernel beside compute, with no communication of its stream behind it.
    """
    turns = [Turn()]
    for block in layer.blocks if phase == "F" else reversed(layer.blocks):
        before = len(turns)
        for computes, run in groupby(block.ops.of(phase), _computes):
            if computes:
                turns.append(Turn(block.name, tuple(run)))
            else:
                turns[-1].sent += tuple(run)
        if len(turns) == before:
            turns.append(Turn(block.name))
        if phase == "B":
            of_block = turns[before:]
            hiding = (turn for turn in reversed(of_block) if turn.hides_weights)
            next(hiding, of_block[-1]).weight = block.ops.weight
    for turn in turns:
        _check_sent(layer, turn.sent)
    return turns


def _check_sent(layer: Layer, sent: Sequence[Work]) -> None:
    following: Stream | None = None
    for work in reversed(sent):
        if isinstance(work, Comm):
            following = work.stream
        elif work.stream != following:
            raise InfeasibleError(
                f"{layer.kind} layer: {work.name}: a kernel on {work.stream} must come before a "
                f"communication on it, got {'one on ' + following if following else 'none'}"
            )


def _computes(work: Work) -> bool:
    """Return whether a work is a kernel that others wait for in turn."""
    return not isinstance(work, Comm) and work.stream == COMPUTE


class Weaver:
    """Writes the segments of parts; runs of kernels of one layer are the same tuple in all."""

    def __init__(self) -> None:
        self._turns: dict[tuple[int, Phase], list[Turn]] = {}
        self._layers: list[Layer] = []  # as long as their identity names their turns

    def weave(
        self,
        forward: Sequence[Layer],
        backward: Sequence[Layer],
        weight: WeightGradients = "awaited",
    ) -> tuple[Segment, ...]:
        """Return a forward pass of some layers, a backward pass of others, or the two woven.

        Args:
            forward, backward: layers in model order; their expert loads are numbered in this order.
            weight: what becomes of the weight gradients of the backward pass.
        """
        loads = _loads((*forward, *backward))
        written: list[Segment] = []
        one = _Pass(self, "F", forward, loads[: len(forward)], written)
        other = _Pass(self, "B", backward, loads[len(forward) :], written, weight)
        backward_places = reversed(range(len(backward)))
        for place, backward_place in zip_longest(range(len(forward)), backward_places):
            first, *then = one.at(place)
            first_backward, *then_backward = other.at(backward_place)
            other.take(first_backward)
            one.take(first)
            for turn, turn_backward in zip_longest(then, then_backward, fillvalue=Turn()):
                one.take(turn)
                other.take(turn_backward)
        return tuple(written)

    def weight_gradients(self, backward: Sequence[Layer]) -> tuple[Segment, ...]:
        """Return the weight gradients that a backward pass of some layers put off."""
        written: list[Segment] = []
        late = _Pass(self, "B", backward, _loads(backward), written)
        for place in reversed(range(len(backward))):
            for turn in late.at(place):
                late.run("W", turn.block, turn.weight, awaited=False)
        return tuple(written)

    def turns_of(self, layer: Layer, phase: Phase) -> list[Turn]:
        """Return the turns of one pass of a layer, the same ones at every call."""
        name = id(layer), phase
        if name not in self._turns:
            self._turns[name] = turns_of(layer, phase)
            self._layers.append(layer)
        return self._turns[name]


def _loads(layers: Sequence[Layer]) -> list[int]:
    """Return the number of the expert load that each layer meets; -1 for none."""
    numbers = count()
    return [next(numbers) if layer.routed else -1 for layer in layers]


@dataclass(slots=True)
class _Pass:
    """One pass that is being written.

    Attributes:
        loads: by layer.
        written: segments of all passes.
        layer: place of the one that is at work.
        last: what the next segment of the pass waits for.
        beside: what runs beside the next kernels, besides.
    """

    weaver: Weaver
    phase: Phase
    layers: Sequence[Layer]
    loads: list[int]
    written: list[Segment]
    weight: WeightGradients = "put off"
    layer: int = 0
    last: tuple[int, ...] = ()
    beside: tuple[int, ...] = ()

    def at(self, place: int | None) -> list[Turn]:
        """Go on to a layer and return its turns; an empty one where there is no layer left."""
        if place is None:
            return [Turn()]
        self.layer = place
        return self.weaver.turns_of(self.layers[place], self.phase)

    def take(self, turn: Turn) -> None:
        """Write a turn."""
        self.run(self.phase, turn.block, turn.kernels)
        if self.weight != "put off" and not turn.hides_weights:
            self.run("W", turn.block, turn.weight, awaited=self.weight == "awaited")
        self._send(turn.sent)
        if self.weight != "put off" and turn.hides_weights:
            self.run("W", turn.block, turn.weight, awaited=False)

    def _send(self, sent: Sequence[Work]) -> None:
        first: list[Work] = []  # kernels that the next communication needs
        for work in sent:
            if not isinstance(work, Comm):
                first.append(work)
                continue
            label = Label(work.name, self.phase, self.layer)
            if first:
                self._append(work.stream, tuple(first), label._replace(note="layout"))
                first = []
            self._append(work.stream, (work,), label, awaited=work.beside != "kernels")
            if work.beside == "kernels":
                self.beside += (len(self.written) - 1,)

    def run(
        self, phase: Phase, block: str, kernels: tuple[Work, ...], *, awaited: bool = True
    ) -> None:
        """Write a run of kernels, if there are any.

        Args:
            awaited: whether it waits for what the pass did before, and what comes next for it.
        """
        if not kernels:
            return
        self._append(COMPUTE, kernels, Label(block, phase, self.layer), awaited=awaited)
        if awaited:
            self.last += self.beside
            self.beside = ()

    def _append(
        self, stream: Stream, work: tuple[Work, ...], label: Label, *, awaited: bool = True
    ) -> None:
        """Write a segment.

        Args:
            awaited: whether what comes next for the pass waits for it; kernels that nothing waits
                for wait for nothing but their stream, communication beside kernels does.
        """
        waits = awaited or stream != COMPUTE
        after = self.last if waits else ()
        self.written.append(Segment(stream, work, after, label, self.loads[self.layer]))
        if awaited:
            self.last = (len(self.written) - 1,)
