"""What is played one by one, and what stands for many."""

from dataclasses import dataclass
from typing import Literal

from simulator.lower.folded import Keep

FOLDED = ("pp",)
"""One pipeline, whose parts stand for those of all expert groups."""

EVERY_RANK = ("pp", "edp", "ep", "etp")
"""All pipelines of all expert groups."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a play takes rank by rank, in any combination.

    Attributes:
        played: axes of the mesh along which every rank is played; those of other axes are alike.
        nics: `own`, one for each kind of a GPU's traffic, or `shared` by all of it.
    """

    played: tuple[str, ...] = FOLDED
    nics: Literal["own", "shared"] = "own"

    @property
    def is_explicit(self) -> bool:
        """Whether every rank is played."""
        return self.played == EVERY_RANK

    @property
    def keep(self) -> Keep:
        """What has to be kept of folded play, for what is played after it."""
        if self.is_explicit:
            return "prices"
        return "insides" if self.nics == "shared" else "numbers"
