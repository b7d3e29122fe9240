"""What a kernel is by its name: class, family and group, from the rules of `kernel_patterns.toml`.

The first rule of which a pattern is found in the name wins. A kernel that no rule knows is of class
`unclassified` and counts as glue. A product whose rule has no family has that of its number format.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from calibration.read.torch_trace import TraceKernel

UNCLASSIFIED = "unclassified"
COMMUNICATION, GLUE = "communication", "glue"
PRODUCTS = "GEMM"
_RULES = Path(__file__).with_name("kernel_patterns.toml")


class KernelClass(NamedTuple):
    """What a kernel is.

    Attributes:
        name: such as `gemm` or `all_reduce`.
        family: of the class: a number format, a library or a kind; "" where there is only one.
        group: what the class counts as in sums: GEMM, attention, communication or glue.
    """

    name: str
    family: str
    group: str


class _Rule(NamedTuple):
    name: str
    family: str
    pattern: re.Pattern[str]


class _Rules(NamedTuple):
    kernels: tuple[_Rule, ...]
    collectives: tuple[_Rule, ...]
    formats: tuple[_Rule, ...]
    copies: Mapping[str, str]
    groups: Mapping[str, str]


def classify(kernel: TraceKernel) -> KernelClass:
    """Return what a kernel of a trace is."""
    return _classify(kernel.name, kernel.kind, kernel.collective)


@cache
def _classify(name: str, kind: str, collective: str) -> KernelClass:
    rules = _rules()
    if kind in rules.copies:
        return _class(rules.copies[kind], "")
    found = _first(rules.kernels, name)
    if found is None:
        return _class(UNCLASSIFIED, "")
    group = rules.groups.get(found.name, GLUE)
    if group == COMMUNICATION and collective:  # the names of kernels tell less than PyTorch does
        told = _first(rules.collectives, collective)
        return _class(found.name if told is None else told.name, found.family)
    if group == PRODUCTS and not found.family:
        told = _first(rules.formats, name)
        return _class(found.name, "" if told is None else told.family)
    return _class(found.name, found.family)


def _class(name: str, family: str) -> KernelClass:
    return KernelClass(name, family, _rules().groups.get(name, GLUE))


def _first(rules: Iterable[_Rule], text: str) -> _Rule | None:
    return next((rule for rule in rules if rule.pattern.search(text)), None)


@cache
def _rules() -> _Rules:
    document = tomllib.loads(_RULES.read_text(encoding="utf-8"))
    groups = {name: group for group, names in document["groups"].items() for name in names}
    return _Rules(
        kernels=_compiled(document["kernels"]),
        collectives=_compiled(document["collectives"]),
        formats=_compiled(document["formats"]),
        copies=document["copies"],
        groups=groups,
    )


def _compiled(tables: Iterable[Mapping[str, Any]]) -> tuple[_Rule, ...]:
    return tuple(
        _Rule(
            table.get("class", ""),
            table.get("family", ""),
            re.compile("|".join(f"(?:{one})" for one in table["patterns"]), re.IGNORECASE),
        )
        for table in tables
    )
