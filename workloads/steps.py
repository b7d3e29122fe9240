"""Steps of a pipeline as columns: who runs what, and who waits for whom.

Steps are numbered rank by rank, in the order in which each rank runs them. What a step gives once
it has ended is a token; a step that needs one of another rank gets it by message.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar, get_args

import numpy as np

from hwmodels.arrays import Ints, Mask
from workloads.phases import PHASES
from workloads.schedules.step import PHASE_OF_KIND, Program, StepKind
from workloads.schedules.step import Step as TrainingStep

NO_CHUNK = (-1, -1)
KINDS: tuple[StepKind, ...] = get_args(StepKind)


class Step(Protocol):
    """One step, for people."""

    @property
    def label(self) -> str:
        """Short name."""

    @property
    def places(self) -> dict[str, Any]:
        """Where in model and batch it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What steps give, numbered kind by kind, as many of each kind.

    Attributes:
        giver: (tokens,) the step that gives it; -1 for none.
        needs: (edges, 2) a step, and a token that must exist before it starts.
        names: of the kinds.
        microbatches: tokens in a row that differ in nothing but the micro-batch.
    """

    giver: Ints
    needs: Ints
    names: tuple[str, ...]
    microbatches: int

    def labels(self, tokens: Ints) -> list[str]:
        """Return kind and micro-batch of some tokens."""
        kinds = tokens // (len(self.giver) // len(self.names))
        known = [f"{name} {number}" for name in self.names for number in range(self.microbatches)]
        places = kinds * self.microbatches + tokens % self.microbatches
        return [known[place] for place in places.tolist()]


S_co = TypeVar("S_co", bound=Step, covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class StepTable(Generic[S_co]):
    """All steps of one pipeline.

    Attributes:
        steps: by pipeline rank, for people.
        first: number of each rank's first step, and one more for the end.
        rank: (steps,) pipeline rank.
        phases: names, those that no step is in among them; phase: (steps,) place in it.
        kind: (steps,) place in `KINDS`.
        forward, backward: (steps, 2) stage and micro-batch that goes this way; -1 for none.
    """

    steps: tuple[tuple[S_co, ...], ...]
    first: tuple[int, ...]
    rank: Ints
    phases: tuple[str, ...]
    phase: Ints
    kind: Ints
    forward: Ints
    backward: Ints
    tokens: Tokens


def step_table(program: Program) -> StepTable[TrainingStep]:
    """Return the steps that a schedule lists, with the rules of `workloads.schedules` applied."""
    first = (0, *accumulate(map(len, program)))
    rank = np.repeat(np.arange(len(program)), np.diff(first))
    number = {kind: place for place, kind in enumerate(KINDS)}
    rows = [
        (number[kind], *(forward or NO_CHUNK), *(backward or NO_CHUNK))
        for steps in program
        for kind, forward, backward in steps
    ]
    kind, *chunks = np.array(rows, np.int64).reshape(-1, 5).T
    forward, backward = np.stack(chunks[:2], axis=1), np.stack(chunks[2:], axis=1)
    names = tuple(PHASES)
    phase = np.array([names.index(PHASE_OF_KIND[step_kind]) for step_kind in KINDS])[kind]
    tokens = _tokens(kind == number["W"], forward, backward)
    return StepTable(program, first, rank, names, phase, kind, forward, backward, tokens)


def _tokens(is_w: Mask, forward: Ints, backward: Ints) -> Tokens:
    (fs, fm), (bs, bm) = forward.T, backward.T
    stages = 1 + max(fs.max(initial=-1), bs.max(initial=-1))
    microbatches = 1 + max(fm.max(initial=-1), bm.max(initial=-1))
    step = np.arange(len(is_w))

    def token(kind: int, stage: Ints, microbatch: Ints) -> Ints:
        return np.asarray((kind * stages + stage) * microbatches + microbatch)

    is_f, is_b = fs >= 0, (bs >= 0) & ~is_w
    giver = np.full(2 * stages * microbatches, -1)
    giver[token(0, fs, fm)[is_f]] = step[is_f]
    giver[token(1, bs, bm)[is_b]] = step[is_b]
    rules = (
        (fs > 0, token(0, fs - 1, fm)),
        (is_w, token(1, bs, bm)),
        (is_b, token(0, bs, bm)),
        (is_b & (bs < stages - 1), token(1, bs + 1, bm)),
    )
    needs = [np.stack([step[chosen], tokens[chosen]], axis=1) for chosen, tokens in rules]
    return Tokens(giver, np.concatenate(needs), ("F", "B"), int(microbatches))
