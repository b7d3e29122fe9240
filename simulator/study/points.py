"""Points of a study: its axes crossed, and each point's experiment when it is asked for."""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from hwmodels.errors import InputError, SpecError
from simulator.driver.program import program_inputs
from simulator.experiment import Experiment
from simulator.study.axes import Axis, check_count, in_order, is_number, label, read_axis
from simulator.study.document import StudySpec
from simulator.study.where import Conditions

DOCUMENTS_KEPT = 1024
SEED = "ranks.seed"
SEED_END = 2**63

OF_PLAN = frozenset(("plan", "batch"))
"""Parts of an experiment that are small, and read soon."""

PLACES_TRIED = 8
"""Of an axis, to see whether its points have programs of their own: most differ at once or never,
and if not, a program is built again and no number moves."""


@dataclass(frozen=True, eq=False)
class Grid:
    """All points of a study, by number; the last axis moves fastest."""

    spec: StudySpec
    base: Experiment
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, spec: StudySpec, base: Experiment) -> "Grid":
        """Return the points of a study of `base`.

        Raises:
            SpecError: an axis cannot be read, conditions name what there is not, or points are too
                many.
        """
        axes = tuple(read_axis(axis, base) for axis in spec.axes)
        grid = cls(spec, base, axes)
        check_count("axes", len(grid))
        moved = {path for axis in axes for path in axis.paths}
        if not moved.isdisjoint((SEED, "ranks")) and grid.gives_seeds:
            raise SpecError(f"seeds: an axis moves {SEED} already; leave out seed and seeds")
        Conditions.of(spec.where).check(grid.shown(0), base)
        return grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Values of each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(self.shape)

    def places(self, number: int) -> tuple[int, ...]:
        """Return where a point is on each axis."""
        return tuple(int(place) for place in np.unravel_index(number, self.shape))

    def shown(self, number: int) -> dict[str, float | str]:
        """Return what stands in the columns of the axes, and of fields that move with them."""
        found: dict[str, Any] = {}
        for axis, place in zip(self.axes, self.places(number), strict=True):
            found[axis.name] = axis.shown[place]
            for path, value in list(axis.changes(place).items())[1:]:
                found[path] = float(value) if is_number(value) else label(value)
        return found

    def changes(self, number: int) -> dict[str, Any]:
        """Return the values of a point by path, its seed included."""
        return self._changes(self.places(number), by_numbers=None) | self._seed(number)

    def experiment(self, number: int) -> Experiment:
        """Return the experiment of a point: `base.with_overrides(changes(number))`, faster.

        Raises:
            InputError: it is none.
        """
        places = self.places(number)
        numbers = self._changes(places, by_numbers=True) | self._seed(number)
        at = tuple(
            -1 if axis.by_numbers else place for axis, place in zip(self.axes, places, strict=True)
        )
        try:
            start = self._start(at)
            return start.with_numbers(numbers) if numbers else start
        except InputError:  # together with the numbers it may yet be one, and if not, this says why
            return self.base.with_overrides(self.changes(number), self._origin)

    def admits(self, number: int) -> bool:
        """Return whether a point meets all conditions.

        Raises:
            InputError: a condition looks at the experiment, and that is none.
        """
        conditions = Conditions.of(self.spec.where)
        return conditions.hold(self.shown(number), lambda: self.experiment(number))

    @lru_cache(maxsize=DOCUMENTS_KEPT)  # noqa: B019 - one grid a process, as long as the process
    def _start(self, at: tuple[int, ...]) -> Experiment:
        """Return the experiment at places of axes whose document is read; -1 for the others.

        Axes of the plan alone come last, so that the parts they leave alone are read once for all
        points: whatever is kept by them, such as prices, is then kept for all.
        """
        others = tuple(-1 if axis in self._of_plan else at[axis] for axis in range(len(at)))
        if others == at:
            start = self.base
        else:
            start = self._start(others)
            at = tuple(at[axis] if axis in self._of_plan else -1 for axis in range(len(at)))
        changes = self._changes(at, by_numbers=False)
        return start.with_overrides(changes, self._origin) if changes else start

    @cached_property
    def _of_plan(self) -> frozenset[int]:
        """Axes of nothing but plan or batch, of which no other axis moves anything."""
        keys = [{path.partition(".")[0] for path in axis.paths} for axis in self.axes]
        mixed = set().union(*(of for of in keys if not of <= OF_PLAN))
        return frozenset(axis for axis, of in enumerate(keys) if of <= OF_PLAN - mixed)

    @property
    def _origin(self) -> str:
        return f"study {self.spec.name}"

    def _changes(self, places: tuple[int, ...], by_numbers: bool | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for axis, place in zip(self.axes, places, strict=True):
            if place >= 0 and by_numbers in (None, axis.by_numbers):
                found |= axis.changes(place)
        return in_order(found)

    @property
    def gives_seeds(self) -> bool:
        """Whether the study says what chance begins with, not its experiment."""
        return self.spec.seed is not None or self.spec.seeds == "own"

    def _seed(self, number: int) -> dict[str, Any]:
        if not self.gives_seeds:
            return {}
        first = self.base.ranks.seed if self.spec.seed is None else self.spec.seed
        return {SEED: (first + (number if self.spec.seeds == "own" else 0)) % SEED_END}

    def by_program(self) -> list[int]:
        """Return all points, those that share a program one after another as far as axes tell."""
        order = [place for place, axis in enumerate(self.axes) if self._asks_otherwise(axis)]
        rest = [place for place in range(len(self.axes)) if place not in order]
        numbers = np.arange(len(self)).reshape(self.shape).transpose([*order, *rest])
        found: list[int] = numbers.ravel().tolist()
        return found

    def _asks_otherwise(self, axis: Axis) -> bool:
        """Return whether points of an axis have programs of their own."""
        count = len(axis.values)
        programs = set()
        for place in range(0, count, -(-count // PLACES_TRIED)):
            changes = axis.changes(place)
            try:
                moved = (
                    self.base.with_numbers(changes)
                    if axis.by_numbers
                    else self.base.with_overrides(in_order(changes), self._origin)
                )
            except InputError:
                continue  # that it cannot run tells nothing
            programs.add(tuple(program_inputs(moved).values()))
        return len(programs) != 1
