"""Facts: what else a run shows beside its metrics, as far as it has them.

One file per kind: a `Facts` subclass whose `kind` is the file's name registers itself when this
package is imported; it is then made of every run that has it, kept in its result and shown.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

from rich.console import Console

from hwmodels.spec import Kinded
from simulator.lower.played import Played
from simulator.tell.exhibits import Exhibit, by_fields, words


@dataclass(frozen=True, slots=True)
class Compared:
    """Seconds that two results are compared by, beside their phases.

    Attributes:
        title: of the table that shows them.
        seconds: by name.
        none_because: why there are none to compare, for people; empty where there are.
    """

    title: str
    seconds: dict[str, float]
    none_because: str = ""


class Facts(Kinded, ABC):
    """What a run shows beside its metrics; says all it needs to show itself.

    Attributes:
        example: changes of an experiment that has no such facts by itself, so that it does.
    """

    example: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    @abstractmethod
    def of(cls, played: Played) -> Self | None:
        """Return the facts of what was played; None where it has none of the kind.

        Raises:
            InputError: what they are drawn from was not kept.
        """

    @abstractmethod
    def show(self, console: Console) -> None:
        """Print the facts."""

    def exhibits(self) -> Iterable[Exhibit]:
        """Return what a page shows of the facts: tables of their fields, if not better."""
        return by_fields(words(self.kind), self, without=("kind",))

    def compared(self) -> Compared | None:
        """Return the seconds that comparisons show; None, as here, where they show none."""
        return None


FactsT = TypeVar("FactsT", bound=Facts)


def facts_of(played: Played) -> tuple[Facts, ...]:
    """Return the facts of every kind that what was played has.

    Raises:
        InputError: what some are drawn from was not kept.
    """
    kinds = (kind for kind in Facts.kinds.values() if issubclass(kind, Facts))
    found = (kind.of(played) for kind in kinds)
    return tuple(facts for facts in found if facts is not None)


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
