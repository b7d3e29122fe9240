"""A kernel profile of one chip and library from rows of tables, as a document to be written.

What a family loses beside communication no such table says: it is the parent's figure, or what the
parent has for a kernel of the same kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.fit.family import FamilyFit, fit_family
from calibration.fit.members import Member, following, inherited, measured
from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.rows import KernelRows, Setting
from hwmodels.chip import ChipSpec
from hwmodels.costs import MemoryParameters
from hwmodels.errors import CalibrationError
from hwmodels.profile import KernelProfile

STREAMING, TENSOR_CORE = "cast", "fp8_block"
"""Families of a parent whose loss beside communication those have that it does not know."""

_COMMENT = """Kernels of {setting}. Written by moesim calibrate fit from tables of timed kernels;
do not edit, refit."""


@dataclass(frozen=True, slots=True)
class TableProfile:
    """A profile to be written, and the fits it rests on."""

    document: ProfileDocument
    fits: tuple[FamilyFit, ...]


def fit_table_profile(
    rows: Sequence[KernelRows], chip: ChipSpec, parent: KernelProfile
) -> TableProfile:
    """Return the profile of rows of one setting.

    Args:
        rows: one entry a family.
        parent: starts the fits that have few rows, and supplies what they do not time.

    Raises:
        CalibrationError: a family has too few sites, or none is left.
    """
    if not rows:
        raise CalibrationError("fit: no rows")
    fits = tuple(fit_family(each, chip, parent) for each in rows)
    members = [*map(measured, fits), *following(fits)]
    members += inherited(parent, but={member.family for member in members})
    document = _head(rows[0].setting, chip, parent)
    for member in members:
        _add(document, member, parent)
    document.sources["errors"] = "calibration.fit.family: on sites left out of the fit, fractions"
    document.tables["errors"] = {
        f"{fit.rows.family}_{name}": getattr(fit.errors, name)
        for fit in fits
        for name in ("median", "p90", "bias")
    }
    return TableProfile(document, fits)


def _head(setting: Setting, chip: ChipSpec, parent: KernelProfile) -> ProfileDocument:
    document = ProfileDocument(
        _COMMENT.format(setting=setting),
        {
            "chip": chip.name,
            "library": setting.library,
            "version": setting.version,
            "clock": "as the table's collector left it, which it does not record",
            "description": f"Kernels of {setting}, one after another.",
            "communication": parent.communication.name,
            "launch_gap_s": Sourced(0.0, "tables time kernels one after another: in launch_s"),
        },
    )
    for table, source in (
        ("envelope", "the rows fitted to"),
        ("site_spread", "calibration.fit.members.site_spread, of sites left out of the fit"),
    ):
        document.sources[table] = source
    return document


def _add(document: ProfileDocument, member: Member, parent: KernelProfile) -> None:
    path, family = f"{member.kind}.{member.family}", member.family
    document.tables[path] = member.parameters.model_dump(exclude_none=True)
    for notes, found in (
        (document.sources, member.notes.sources),
        (document.assumed, member.notes.assumed),
    ):
        notes |= {f"{path}.{name}".rstrip("."): text for name, text in found.items()}
    slowdown, why = _interference(member, parent)
    document.assumed[f"interference.{family}"] = why
    for table, value in (
        ("factor", member.factor),
        ("site_spread", member.spread),
        ("transferred", member.transferred),
        ("envelope", member.envelope),
        ("interference", slowdown),
    ):
        if value:
            known = document.tables.get(table, {})
            document.tables[table] = {**known, family: value}


def _interference(member: Member, parent: KernelProfile) -> tuple[float, str]:
    """Return the slowdown of a family beside communication, and where it is from."""
    streams = isinstance(member.parameters, MemoryParameters)
    for family in (member.family, STREAMING if streams else TENSOR_CORE):
        if parent.knows(family):
            of = f"{family} of {parent.name}"
            return parent.interference_factor(family), f"{of}: no table times kernels side by side"
    return 1.0, "none: neither the table nor the parent says"
