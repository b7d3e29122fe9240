"""The families of a profile to be written: measured, following another, or taken from a parent."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from calibration.fit.family import FamilyFit
from calibration.fit.profile_document import Sourced
from calibration.fit.training_families import FOLLOWERS, Follower
from calibration.rows import KernelRows
from hwmodels.costs import Parameters
from hwmodels.profile import KernelProfile

CHIPS_DIFFER = Sourced(
    1.0,
    "one library on two chips with one kind of SM and one clock: products of 1,024 rows or more "
    "take 2 to 4 % longer on H100 than on H200 (medians over sites, by format; AIConfigurator "
    "tables, ai-dynamo/aiconfigurator @095f58a5, TensorRT-LLM 1.3.0rc20 and SGLang 0.5.14)",
    0.96,
    1.04,
)
"""What the kernels of a library take on a chip over what they took on the one that was timed."""

AT_BOUND = "ended at an end of its range: that set it, and not the rows"
UNTOLD = "no price of the rows moves with it: its value says nothing"

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal over its median distance from the median."""


class Notes(NamedTuple):
    """Citations and reasons of guesses, by name of a constant; "" of all of them."""

    sources: Mapping[str, str]
    assumed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Member:
    """One family of a profile.

    Attributes:
        kind: table of the profile.
        factor, spread, transferred, envelope: as in `KernelProfile`, by family; None or empty
            where the profile says nothing.
    """

    kind: str
    family: str
    parameters: Parameters
    notes: Notes
    factor: Sourced | None = None
    spread: float | None = None
    transferred: str = ""
    envelope: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def measured(fit: FamilyFit) -> Member:
    """Return a family that was fitted to rows."""
    rows, errors = fit.rows, fit.errors
    pull = f", pulled to {fit.parent}" if fit.parent else ""
    fitted = (
        f"fitted by calibration.fit.family to {len(rows)} rows of {rows.source}{pull}; on sites "
        f"left out median |error| {errors.median:.1%}, P90 {errors.p90:.1%}"
    )
    assumed = dict.fromkeys(fit.at_bound, AT_BOUND) | dict.fromkeys(fit.not_identified, UNTOLD)
    sources = {"": "structure of the library, or the default of the cost function"}
    sources |= {name: fitted for name in fit.free if name not in assumed}
    return Member(
        rows.kind, rows.family, fit.parameters, Notes(sources, assumed),
        factor=CHIPS_DIFFER, spread=site_spread(fit), envelope=envelope(rows),
    )  # fmt: skip


def following(fits: Iterable[FamilyFit]) -> Iterator[Member]:
    """Yield the families of training that follow one that was fitted."""
    known = {fit.rows.family: fit for fit in fits}
    for follower in FOLLOWERS:
        leader = next((known[name] for name in follower.leaders if name in known), None)
        if leader is not None and follower.family not in known:
            yield _follower(follower, leader)


def _follower(follower: Follower, leader: FamilyFit) -> Member:
    led_by = leader.rows.family
    return Member(
        follower.kind, follower.family, leader.parameters,
        Notes({}, {"": f"constants of {led_by}: {follower.why}"}),
        factor=follower.factor or CHIPS_DIFFER, spread=site_spread(leader), transferred=led_by,
    )  # fmt: skip


def inherited(parent: KernelProfile, but: set[str]) -> Iterator[Member]:
    """Yield what a parent knows besides the families in `but`.

    Its gaps between kernels go into the launches of its kernels: tables time kernels one after
    another, and have no gap of their own.
    """
    for kind, table in parent.tables().items():
        for family, parameters in table.items():
            if family in but:
                continue
            origin = parent.transferred.get(family, f"{parent.name} ({parent.chip})")
            launch_s = parameters.launch_s + parent.launch_gap_s
            yield Member(
                kind, family, parameters.model_copy(update={"launch_s": launch_s}),
                Notes({}, {"": f"from {origin}: no table times it on this chip"}),
                spread=parent.site_spread.get(family), transferred=origin,
            )  # fmt: skip


def site_spread(fit: FamilyFit) -> float:
    """Return the standard deviation of log(price / measured) over sites left out, each by its
    median, as 1.48 times the median distance from the median.
    """
    order = np.argsort(fit.rows.site, kind="stable")
    first = np.flatnonzero(np.diff(fit.rows.site[order])) + 1
    medians = np.array([np.median(part) for part in np.split(fit.held_out[order], first)])
    return float(MAD_TO_SIGMA * np.median(np.abs(medians - np.median(medians))))


def envelope(rows: KernelRows) -> dict[str, tuple[float, float]]:
    """Return the least and largest of each size that varies from row to row."""
    columns = {k: v for k, v in rows.shape.items() if isinstance(v, np.ndarray) and v.ndim == 1}
    return {name: (_plain(v.min()), _plain(v.max())) for name, v in columns.items()}


def _plain(value: float) -> float:
    """Return a whole number as one: a profile keeps all digits of those."""
    return int(value) if float(value).is_integer() else float(value)
