"""Pipeline schedules, one a file: the order of work on every rank, and its closed forms.

A module of this package that defines `NAME` is a schedule; it is found at import, listed in
`SCHEDULES`, and every test of the contract below runs on it. Write it against `Schedule`.

**Rules of dependency** (`step.needs`, `step.produces`): a rank runs its steps one after another
in program order. Forward of stage s waits for forward of stage s - 1; backward of stage s for its
own forward and for the input gradient of stage s + 1; a weight gradient for the input gradient of
its own chunk. A step gives out all it produces when it ends.

**Stages** are numbered along the model. A rank holds one, or several model chunks: `vpp` of them
(virtual pipeline size), so that there are PP vpp stages. A plan that says nothing of vpp gets what
the schedule is made for, and one that asks for what it cannot do is refused. Under DualPipe a rank
holds two stages, but each stage has two homes, so it has PP stages and vpp 1.

**Times** in the closed forms are of one micro-batch on one stage: `forward_s`, `backward_s` (full:
input and weight gradients), `weight_s` (the weight gradient alone), `pair_s` (a forward overlapped
with a full backward). The forms and their names are DeepSeek-V3's Table 2 (arXiv 2412.19437v2
§3.2.1).
"""

import importlib
import pkgutil
from typing import Protocol, runtime_checkable

from hwmodels.errors import SpecError, suggestion
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program


@runtime_checkable
class Schedule(Protocol):
    """What a schedule module provides.

    Attributes:
        NAME: its name in a plan.
        PARAMETER_COPIES: pipeline ranks that hold each stage's parameters.

    A module may also have `ALIASES`, other names that a plan may call it by.
    """

    NAME: str
    PARAMETER_COPIES: int

    @staticmethod
    def stages(pp: int, vpp: int | None = None) -> int:
        """Stages of a pipeline of `pp` ranks, `vpp` model chunks a rank.

        Raises:
            InfeasibleError: it cannot run with so many chunks a rank.
        """

    @staticmethod
    def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
        """Steps of each of `pp` ranks for `microbatches` micro-batches per pipeline.

        Raises:
            InfeasibleError: the schedule cannot run these.
        """

    @staticmethod
    def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
        """Stages that pipeline rank `rank` holds.

        Raises:
            InfeasibleError: there is no such rank, or as `stages`.
        """

    @staticmethod
    def bubble_s(
        pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float
    ) -> float:
        """Idle seconds of a rank in one step, equal chunks, messages free."""

    @staticmethod
    def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
        """Seconds of a step, messages free: exact for equal stages where `bubble_s` is.

        Args:
            times: of all stages, as many as `stages` says.
        """

    @staticmethod
    def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
        """Most chunks the fullest rank holds activations of at once."""

    @staticmethod
    def minimum_microbatches(pp: int) -> int:
        """Fewest micro-batches per pipeline that the schedule can run."""

    @staticmethod
    def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
        """Refuse what the schedule cannot run.

        Raises:
            InfeasibleError: too few micro-batches, or a number of ranks, or of chunks a rank, that
                it does not know.
        """

    @staticmethod
    def sizes() -> tuple[tuple[int, int, int], ...]:
        """Ranks, micro-batches and chunks a rank that tests of the contract try it with."""


def _discover() -> dict[str, Schedule]:
    """Import every sibling and collect those that are schedules."""
    found: dict[str, Schedule] = {}
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        if not hasattr(module, "NAME"):
            continue
        if not isinstance(module, Schedule):
            raise TypeError(f"{module.__name__}: lacks a part of the Schedule contract")
        if module.NAME in found:
            raise TypeError(f"{module.__name__}: schedule {module.NAME!r} exists twice")
        found[module.NAME] = module
    return found


SCHEDULES: dict[str, Schedule] = _discover()
ALIASES = {
    alias: name for name, each in SCHEDULES.items() for alias in getattr(each, "ALIASES", ())
}


def schedule(name: str) -> Schedule:
    """Return the schedule called `name`, or by that alias.

    Raises:
        SpecError: no such schedule.
    """
    known = ALIASES.get(name, name)
    if known not in SCHEDULES:
        raise SpecError(f"plan.schedule: {name!r} is unknown{suggestion(name, SCHEDULES)}")
    return SCHEDULES[known]


def filling(pipeline: Schedule, pp: int, microbatches: int, vpp: int | None) -> int:
    """Return micro-batches, no more than these, in which a rank holds all that it holds in these:
    2 PP, or all where other groups of micro-batches go together.
    """
    few = min(microbatches, 2 * pp)
    held = (pipeline.chunks_in_flight(pp, each, vpp) for each in (few, microbatches))
    return few if len(set(held)) == 1 else microbatches
