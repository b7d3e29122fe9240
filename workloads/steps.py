"""Steps of a pipeline as columns: who runs what, and who waits for whom.

Steps are numbered rank by rank, in the order in which each rank runs them. What a step gives once
it has ended is a token; a step that needs one of another rank gets it by message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from hwmodels.arrays import Ints
from workloads.phases import PHASES
from workloads.schedules.step import PHASE_OF_KIND, Program
from workloads.schedules.step import Step as TrainingStep

NO_CHUNK = (-1, -1)


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
    """What steps give, numbered kind by kind, `each` of a kind.

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
        pairs = zip(kinds.tolist(), (tokens % self.microbatches).tolist(), strict=True)
        return [f"{self.names[kind]} {microbatch}" for kind, microbatch in pairs]


S_co = TypeVar("S_co", bound=Step, covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class StepTable(Generic[S_co]):
    """All steps of one pipeline.

    Attributes:
        steps: by pipeline rank, for people.
        first: number of each rank's first step, and one more for the end.
        rank: (steps,) pipeline rank.
        phases: names, those that no step is in among them; phase: (steps,) place in it.
    """

    steps: tuple[tuple[S_co, ...], ...]
    first: tuple[int, ...]
    rank: Ints
    phases: tuple[str, ...]
    phase: Ints
    tokens: Tokens


def step_table(program: Program) -> StepTable[TrainingStep]:
    """Return the steps that a schedule lists, with the rules of `workloads.schedules` applied."""
    first = (0, *accumulate(map(len, program)))
    rank = np.repeat(np.arange(len(program)), np.diff(first))
    names = tuple(PHASES)
    place = {kind: names.index(phase) for kind, phase in PHASE_OF_KIND.items()}
    phase = np.array([place[step.kind] for own in program for step in own], np.int64)
    return StepTable(program, first, rank, names, phase, _tokens(program))


def _tokens(program: Sequence[Sequence[Any]]) -> Tokens:
    columns = [
        (kind == "W", *(forward or NO_CHUNK), *(backward or NO_CHUNK))
        for own in program
        for kind, forward, backward in own
    ]
    is_w, fs, fm, bs, bm = np.array(columns, np.int64).reshape(-1, 5).T
    stages = 1 + max(fs.max(initial=-1), bs.max(initial=-1))
    microbatches = 1 + max(fm.max(initial=-1), bm.max(initial=-1))
    step = np.arange(len(is_w))

    def token(kind: int, stage: Ints, microbatch: Ints) -> Ints:
        return np.asarray((kind * stages + stage) * microbatches + microbatch)

    ahead, back = fs >= 0, (bs >= 0) & (is_w == 0)
    giver = np.full(2 * stages * microbatches, -1)
    giver[token(0, fs, fm)[ahead]] = step[ahead]
    giver[token(1, bs, bm)[back]] = step[back]
    rules = (
        (fs > 0, token(0, fs - 1, fm)),
        (is_w == 1, token(1, bs, bm)),
        (back, token(0, bs, bm)),
        (back & (bs < stages - 1), token(1, bs + 1, bm)),
    )
    needs = [np.stack([step[chosen], tokens[chosen]], axis=1) for chosen, tokens in rules]
    return Tokens(giver, np.concatenate(needs), ("F", "B"), int(microbatches))
