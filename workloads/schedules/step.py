"""One step of a pipeline program, and what it waits for: the vocabulary all schedules share."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

StepKind = Literal["F", "B", "Bi", "W", "FB"]
Phase = Literal["F", "B", "W"]

PHASE_OF_KIND: dict[StepKind, str] = {
    "F": "forward",
    "B": "backward",
    "Bi": "backward",
    "W": "weight",
    "FB": "forward_backward",
}


class Chunk(NamedTuple):
    """One micro-batch on one stage."""

    stage: int
    microbatch: int


class Token(NamedTuple):
    """A fact that one step produces and others wait for: `phase` of this chunk is done.

    `F`: its output exists. `B`: its input's gradient exists. `W`: its weights' gradient is added.
    """

    phase: Phase
    stage: int
    microbatch: int


class Step(NamedTuple):
    """One entry of a rank's program.

    Attributes:
        kind: `F` forward; `B` full backward (input and weight gradients); `Bi` input gradient
            only, its weight gradient put off; `W` such a weight gradient; `FB` a forward chunk
            and another chunk's full backward, overlapped.
        forward: the chunk going forward (`F`, `FB`).
        backward: the chunk going backward (`B`, `Bi`, `W`, `FB`).
    """

    kind: StepKind
    forward: Chunk | None = None
    backward: Chunk | None = None

    @property
    def label(self) -> str:
        """`F 12`, `B 3`, `FB 14|2` ...: kind and micro-batches."""
        kind, forward, backward = self
        if forward and backward:
            return f"{kind} {forward.microbatch}|{backward.microbatch}"
        only = forward or backward
        return f"{kind} {only.microbatch}" if only else kind

    @property
    def places(self) -> dict[str, dict[str, int]]:
        """Stage and micro-batch of each of its chunks."""
        chunks = {"forward": self.forward, "backward": self.backward}
        return {name: chunk._asdict() for name, chunk in chunks.items() if chunk}


Program = tuple[tuple[Step, ...], ...]
"""Steps of every pipeline rank, in the order the rank runs them."""


def produces(step: Step) -> tuple[Token, ...]:
    """Tokens that exist once `step` has ended."""
    tokens = []
    if step.forward:
        tokens.append(Token("F", *step.forward))
    if step.backward and step.kind != "W":
        tokens.append(Token("B", *step.backward))
    if step.backward and step.kind != "Bi":
        tokens.append(Token("W", *step.backward))
    return tuple(tokens)


def needs(step: Step, stages: int) -> tuple[Token, ...]:
    """Tokens that must exist before `step` starts, in a pipeline of `stages` stages.

    Forward of stage s needs forward of s - 1. Backward of stage s needs its own forward, and the
    input gradient of s + 1 unless s is the last stage. A weight gradient needs its own backward.
    A pair needs what both parts need.
    """
    tokens = []
    if step.forward and step.forward.stage > 0:
        tokens.append(Token("F", step.forward.stage - 1, step.forward.microbatch))
    if step.backward and step.kind == "W":
        tokens.append(Token("B", *step.backward))
    elif step.backward:
        tokens.append(Token("F", *step.backward))
        if step.backward.stage < stages - 1:
            tokens.append(Token("B", step.backward.stage + 1, step.backward.microbatch))
    return tuple(tokens)


def stage_count(program: Program) -> int:
    """Stages of the pipeline that `program` runs."""
    chunks = (c for steps in program for s in steps for c in (s.forward, s.backward) if c)
    return 1 + max((chunk.stage for chunk in chunks), default=-1)


def producers(program: Program) -> dict[Token, tuple[int, int]]:
    """Map each token of `program` to the (rank, index in that rank's program) that produces it."""
    return {
        token: (rank, index)
        for rank, steps in enumerate(program)
        for index, step in enumerate(steps)
        for token in produces(step)
    }


def in_flight(steps: Sequence[Step]) -> Iterator[tuple[int, Chunk, int]]:
    """Walk one rank's program as (index, chunk, +1 or -1): activations taken and given back.

    A forward takes its activations when it starts; a backward, full or of the input only, gives
    them back when it ends. So an overlapped pair holds both chunks at once. What a weight gradient
    put off keeps of them is not counted.
    """
    for index, step in enumerate(steps):
        if step.forward:
            yield index, step.forward, 1
        if step.backward and step.kind != "W":
            yield index, step.backward, -1
