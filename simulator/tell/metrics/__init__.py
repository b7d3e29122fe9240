"""Metrics: what a run achieved, in the numbers that its scenario is judged by.

One file per kind: a `Metrics` subclass whose `kind` is the name of the scenario registers itself
when this package is imported. What compares, samples or draws results knows its headlines only.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from hwmodels.spec import Kinded
from simulator.lower.played import Played
from simulator.tell.headlines import UNITS, Headline, shown


class Metrics(Kinded, ABC):
    """What a run achieved.

    Attributes:
        headline: numbers that results of the kind are compared by, the decisive one first.
    """

    headline: ClassVar[tuple[Headline, ...]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for each in getattr(cls, "headline", ()):
            field = cls.model_fields.get(each.name)
            if field is None or field.annotation is not float or each.unit not in UNITS:
                units = ", ".join(filter(None, UNITS))
                raise TypeError(f"{cls.__name__}: {each} must be a float of it, in {units}")
        super().__pydantic_init_subclass__(**kwargs)

    @classmethod
    @abstractmethod
    def of(cls, played: Played) -> Self:
        """Return the metrics of what was played; cheap, as it is done for every draw.

        Raises:
            InfeasibleError: one of them is not finite.
        """

    @property
    def numbers(self) -> dict[str, float]:
        """The headline numbers, by name."""
        return {each.name: getattr(self, each.name) for each in self.headline}

    def rows(self) -> Iterable[tuple[str, str]]:
        """Return words and values for a terminal."""
        return [(each.title, shown(self.numbers[each.name], each.unit)) for each in self.headline]

    def remarks(self, experiment: Mapping[str, Any]) -> Iterable[str]:
        """Return what else to say of the numbers of a resolved experiment, a line each."""
        return ()


def metrics_of(played: Played) -> Metrics:
    """Return the metrics of what was played, of the kind that its program is for.

    Raises:
        InfeasibleError: one of them is not finite.
    """
    kind = Metrics.kinds[played.program.scenario]
    assert issubclass(kind, Metrics), "the registry of a family holds its own subclasses"
    return kind.of(played)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
