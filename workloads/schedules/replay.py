"""Replay of a pipeline program by longest path: short, exact, and independent of the engines.

Each rank runs its steps in order; a step starts when its rank is free and all it needs exists.
Nothing is chosen, so the order of evaluation does not matter. Used as the oracle of schedules and
of the engines that play them, and to count the activations a rank holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwmodels.errors import DeadlockError
from workloads.schedules.step import Program, Step, Token, in_flight, needs, produces, stage_count


@dataclass(frozen=True, slots=True)
class ChunkTimes:
    """Seconds of equal chunks; call it with a step.

    Attributes:
        forward_s: a forward alone.
        backward_s: a full backward alone, weight gradient included.
        weight_s: the weight gradient alone; the input gradient takes `backward_s - weight_s`.
        pair_s: a forward overlapped with a full backward.
    """

    forward_s: float
    backward_s: float
    weight_s: float
    pair_s: float

    def __call__(self, step: Step) -> float:
        """Seconds that `step` takes."""
        return {
            "F": self.forward_s,
            "B": self.backward_s,
            "Bi": self.backward_s - self.weight_s,
            "W": self.weight_s,
            "FB": self.pair_s,
        }[step.kind]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Attributes:
        start_s, end_s: of every step, per rank in program order.
        busy_s: seconds each rank computes.
        chunks_in_flight: most chunks each rank holds activations of at once.
    """

    start_s: tuple[tuple[float, ...], ...]
    end_s: tuple[tuple[float, ...], ...]
    busy_s: tuple[float, ...]
    chunks_in_flight: tuple[int, ...]

    @property
    def makespan_s(self) -> float:
        """When the last rank ends."""
        return max((ends[-1] for ends in self.end_s if ends), default=0.0)

    @property
    def bubble_s(self) -> tuple[float, ...]:
        """Seconds each rank idles between the first start and the last end of all."""
        return tuple(self.makespan_s - busy for busy in self.busy_s)


def replay(program: Program, duration_s: Callable[[Step], float], message_s: float = 0.0) -> Replay:
    """Play `program`: `duration_s(step)` seconds each, `message_s` for a token to change rank.

    Raises:
        DeadlockError: the orders cannot finish; names what each blocked rank waits for.
    """
    stages = stage_count(program)
    ready: dict[Token, tuple[int, float]] = {}
    starts: list[list[float]] = [[] for _ in program]
    ends: list[list[float]] = [[] for _ in program]
    moved = True
    while moved:
        moved = False
        for rank, steps in enumerate(program):
            while len(ends[rank]) < len(steps):
                step = steps[len(ends[rank])]
                wanted = needs(step, stages)
                if any(token not in ready for token in wanted):
                    break
                arrivals = [
                    end_s + (message_s if home != rank else 0.0)
                    for home, end_s in (ready[token] for token in wanted)
                ]
                start_s = max([ends[rank][-1] if ends[rank] else 0.0, *arrivals])
                starts[rank].append(start_s)
                ends[rank].append(start_s + duration_s(step))
                ready |= dict.fromkeys(produces(step), (rank, ends[rank][-1]))
                moved = True
    _refuse_unfinished(program, ends, ready)
    return Replay(
        start_s=tuple(map(tuple, starts)),
        end_s=tuple(map(tuple, ends)),
        busy_s=tuple(sum(duration_s(step) for step in steps) for steps in program),
        chunks_in_flight=tuple(round(peak_in_flight(steps)) for steps in program),
    )


def _refuse_unfinished(
    program: Program, ends: Sequence[Sequence[float]], ready: dict[Token, tuple[int, float]]
) -> None:
    blocked, stages = [], stage_count(program)
    for rank, steps in enumerate(program):
        if len(ends[rank]) < len(steps):
            step = steps[len(ends[rank])]
            missing = [token for token in needs(step, stages) if token not in ready]
            waits = " and ".join(f"{t.phase}(stage {t.stage}, {t.microbatch})" for t in missing)
            blocked.append(f"rank {rank} at {step.kind} waits for {waits}")
    if blocked:
        rest = f"; and {len(blocked) - 4} more ranks" if len(blocked) > 4 else ""
        raise DeadlockError(f"schedule cannot finish: {'; '.join(blocked[:4])}{rest}")


def peak_in_flight(
    steps: Sequence[Step], weight: Callable[[int], float] = lambda stage: 1.0
) -> float:
    """Largest sum of `weight(stage)` over chunks whose activations one rank holds at once.

    With the default it counts chunks; with bytes per stage it is the activation memory.
    """
    held = peak = 0.0
    for _, chunk, change in in_flight(steps):
        held += change * weight(chunk.stage)
        if held > peak:  # noqa: PLR1730 - a third of the time that max() takes
            peak = held
    return peak
