"""Pipeline schedules, one a file: the order of work on every rank, and its closed forms.

A module of this package that defines `NAME` is a schedule; it is found at import, listed in
`SCHEDULES`, and every test of the contract below runs on it. Write it against `Schedule`.

**Rules of dependency** (`step.needs`, `step.produces`): a rank runs its steps one after another
in program order. Forward of stage s waits for forward of stage s - 1; backward of stage s for its
own forward and for the input gradient of stage s + 1; a weight gradient for the input gradient of
its own chunk. A step gives out all it produces when it ends.

**Times** in the closed forms: `forward_s`, `backward_s` (full: input and weight gradients),
`weight_s` (the weight gradient alone), `pair_s` (a forward overlapped with a full backward). The
forms and their names are DeepSeek-V3's Table 2 (arXiv 2412.19437v2 §3.2.1).
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
    """

    NAME: str
    PARAMETER_COPIES: int

    @staticmethod
    def steps(pp: int, microbatches: int) -> Program:
        """Steps of each of `pp` ranks for `microbatches` micro-batches per pipeline.

        Raises:
            InfeasibleError: the schedule cannot run these.
        """

    @staticmethod
    def stages_of_rank(pp: int, rank: int) -> tuple[int, ...]:
        """Stages that pipeline rank `rank` holds; there are `pp` stages."""

    @staticmethod
    def bubble_s(
        pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float
    ) -> float:
        """Idle seconds of a rank in one step, equal chunks, messages free."""

    @staticmethod
    def step_s(pp: int, microbatches: int, stages: StageTimes) -> float:
        """Seconds of a step, messages free: exact for equal stages where `bubble_s` is."""

    @staticmethod
    def chunks_in_flight(pp: int, microbatches: int) -> int:
        """Most chunks the fullest rank holds activations of at once."""

    @staticmethod
    def minimum_microbatches(pp: int) -> int:
        """Fewest micro-batches per pipeline that the schedule can run."""

    @staticmethod
    def check(pp: int, microbatches: int) -> None:
        """Refuse what the schedule cannot run.

        Raises:
            InfeasibleError: too few micro-batches, or a number of ranks it does not know.
        """

    @staticmethod
    def sizes() -> tuple[tuple[int, int], ...]:
        """Ranks and micro-batches that tests of the contract try it with."""


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


def schedule(name: str) -> Schedule:
    """Return the schedule called `name`.

    Raises:
        SpecError: no such schedule.
    """
    if name not in SCHEDULES:
        raise SpecError(f"plan.schedule: {name!r} is unknown{suggestion(name, SCHEDULES)}")
    return SCHEDULES[name]
