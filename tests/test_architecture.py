"""The rooms of the house: who may import whom, what they may name, what importing one loads.

The sources are read, not run, except where a rule is about what an import loads.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests.sources import CHECKOUT, PACKAGES, SOURCES, Source, imports, parse, report

# The roof may look into every room.
ROOF = "simulator.cli"

# What a workload is once it has left its room: no model, no layer, no schedule.
PROGRAM = [
    f"workloads.{name}"
    for name in ("mesh", "ops", "optimizer", "phases", "placement", "program", "routing",
                 "segments", "shapes", "steps")
]  # fmt: skip

# Room -> what it may import of ours. The longest matching room counts. Data flows one way:
# experiment -> workloads -> price -> lower -> play -> tell, and the driver takes it through. The
# engines see times and graphs only: which machine those came from is no business of theirs. The
# network sees bytes and links: prices ask it, it asks for none. Telling plays and prices nothing.
ARROWS = {
    "hwmodels": ["hwmodels"],
    "workloads": [
        "workloads",
        "hwmodels.arrays",
        "hwmodels.errors",
        "hwmodels.formats",
        "hwmodels.spec",
        "hwmodels.units",
    ],
    "simulator": ["simulator", "hwmodels", "workloads"],
    "simulator.network": ["simulator.network", "hwmodels", "workloads"],
    "simulator.price": ["simulator.price", "simulator.network", "hwmodels", *PROGRAM],
    "simulator.lower": [
        "simulator.lower",
        "simulator.price",
        "simulator.engines",
        "hwmodels.arrays",
        "hwmodels.errors",
        *PROGRAM,
    ],
    # What was played is told of its experiment; nothing else of the room knows one.
    "simulator.lower.played": [
        "simulator.lower",
        "simulator.price",
        "simulator.engines.timeline",
        "simulator.experiment",
        "hwmodels.errors",
        "workloads.program",
    ],
    "simulator.engines": ["simulator.engines", "hwmodels.arrays", "hwmodels.errors"],
    "simulator.tell": [
        "simulator.tell",
        "simulator.lower",
        "simulator.price",
        "simulator.network",
        "simulator.engines.order",
        "simulator.engines.timeline",
        "simulator.uncertainty",
        "simulator.experiment",
        "hwmodels",
        *PROGRAM,
    ],
    "simulator.published": ["simulator", "hwmodels", "workloads"],
    # Studies are tables over what was played; they look into no graph.
    "simulator.study": [
        "simulator.study",
        "simulator.driver",
        "simulator.network",
        "simulator.tell",
        "simulator.experiment",
        "simulator.uncertainty",
        "hwmodels",
        "workloads",
    ],
    # But for the screen, which makes a step of closed forms and of parts instead of playing it.
    "simulator.study.screen": ["simulator", "hwmodels", "workloads"],
    "simulator.study.part_seconds": ["simulator", "hwmodels", "workloads"],
    "simulator.driver": ["simulator", "hwmodels", "workloads"],
    "kernels": ["kernels"],
    "calibration": ["calibration", "hwmodels", "workloads", "kernels"],
}

# Room -> what it may not import although the arrows above allow it.
CLOSED_DOORS = {
    "simulator.lower": [
        "simulator.engines.array",
        "simulator.engines.engine",
        "simulator.engines.reference",
    ],
    "simulator.driver": ["simulator.cli", "simulator.published", "simulator.study"],
    "simulator.tell": [
        "hwmodels.costs",
        "simulator.price.messages",
        "simulator.price.kernels",
        "simulator.price.optimizer",
    ],
    "simulator.published": ["simulator.cli", "simulator.engines"],
}

# Room -> what it imports as yet, and shall not in the end: what is told of a run will come as its
# facts.
TEMPORARY = {
    "simulator.tell": ["simulator.experiment", "simulator.engines.order", "simulator.uncertainty"],
}
TARGETS = {
    room: [name for name in ARROWS[room] if name not in names] for room, names in TEMPORARY.items()
}

# Rooms that know programs only: neither a model, nor a kind of attention, nor a schedule, and of
# passes no more than that they have names.
NAMELESS = [
    f"simulator.{name}" for name in ("price", "network", "lower", "engines", "tell", "driver")
]
NAMES = re.compile(r"mla|dual_?pipe|deep_?seek|zero_?bubble|1f1b|zb1p", re.IGNORECASE)
PASSES = {"F", "B", "Bi", "W", "FB"}

ROOMS_MAX = 13
"""Files and folders at the top of the simulator that a newcomer is asked to tell apart."""

# Measuring happens on GPU machines that have nothing of ours but these, and few libraries.
MEASURING = [f"calibration.{name}" for name in ("measure", "gpu_day", "stack")]
MEASURING_MAY_IMPORT = [*MEASURING, "kernels", "hwmodels.errors", "numpy", "torch", "triton"]

# Library -> the only rooms that may import it.
LIBRARIES = {
    "torch": ["kernels", "calibration"],
    "triton": ["kernels", "calibration"],
    "pandas": ["simulator.tell", "simulator.study", ROOF],
    "plotly": ["simulator.tell"],
    "jinja2": ["simulator.tell"],
    "markupsafe": ["simulator.tell"],
    "ray": ["simulator.study"],
    "simpleeval": ["simulator.study"],
    "matplotlib": ["simulator.tell", ROOF],
    "rich": ["simulator.tell", "simulator.published", ROOF],
    "click": ["simulator.tell", ROOF],
    "numba": ["hwmodels.costs", "simulator.engines", "simulator.network"],
}


def inside(module: str, rooms: list[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def room_of(module: str, rooms: dict[str, list[str]]) -> str | None:
    """Return the innermost of `rooms` that holds `module`."""
    return max((room for room in rooms if inside(module, [room])), key=len, default=None)


def missed_targets(source: Source, target: str) -> Iterator[str]:
    """Imports of one module that its room is not to have in the end."""
    for found in imports(source) if inside(source.module, [target]) else ():
        if found.target.split(".")[0] in PACKAGES and not inside(found.target, TARGETS[target]):
            yield f"{found}; {target} is to import {', '.join(TARGETS[target])}"


def forbidden_imports(source: Source) -> Iterator[str]:
    """Breaches of the rules above by one module, each a line for people."""
    for found in imports(source):
        top = found.target.split(".")[0]
        ours = top in PACKAGES
        if not inside(source.module, [ROOF]) and ours:
            room = room_of(source.module, ARROWS)
            assert room is not None, f"{source.module} is in no room"
            if not inside(found.target, ARROWS[room]):
                yield f"{found}; {room} may import {', '.join(ARROWS[room])}"
            room = room_of(source.module, CLOSED_DOORS)
            if room is not None and inside(found.target, CLOSED_DOORS[room]):
                yield f"{found}; {room} may not import {', '.join(CLOSED_DOORS[room])}"
        if top in LIBRARIES and not inside(source.module, LIBRARIES[top]):
            yield f"{found}; {top} belongs in {', '.join(LIBRARIES[top])}"
        if inside(source.module, MEASURING):
            stdlib = top in sys.stdlib_module_names
            if not stdlib and not inside(found.target, MEASURING_MAY_IMPORT):
                yield f"{found}; measuring may import {', '.join(MEASURING_MAY_IMPORT)}"


def test_every_room_is_read() -> None:
    assert {source.module.split(".")[0] for source in SOURCES} == set(PACKAGES)


def test_imports_follow_the_arrows() -> None:
    breaches = [breach for source in SOURCES for breach in forbidden_imports(source)]
    assert not breaches, report(breaches)


@pytest.mark.parametrize(
    "target", [pytest.param(room, marks=pytest.mark.xfail(strict=True)) for room in TARGETS]
)
def test_arrows_are_those_that_the_rooms_shall_come_to(target: str) -> None:
    breaches = [breach for source in SOURCES for breach in missed_targets(source, target)]
    assert not breaches, report(breaches)


def workload_names(source: Source) -> Iterator[str]:
    """Names of models, attention, schedules and passes in one module, docstrings left out.

    `"B"` and `"W"` as what a call is given, or as what a table holds, are units.
    """
    units = set(unit_places(source.tree))
    for node in ast.walk(source.tree):
        match node:
            case (
                ast.Name(id=name)
                | ast.Attribute(attr=name)
                | ast.arg(arg=name)
                | ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                found = NAMES.search(name)
            case ast.alias(name=name, asname=other):
                found = NAMES.search(f"{name} {other}")
            case ast.Compare(left=left, comparators=others):
                found = any(is_pass(each) for each in (left, *others))
            case ast.Constant(value=str(text)) if node not in units:
                found = text in PASSES or NAMES.search(text)
            case _:
                continue
        if found:
            line = getattr(node, "lineno", 0)
            yield f"{source.where(line)} {ast.unparse(node).partition(chr(10))[0]}"


def unit_places(tree: ast.AST) -> Iterator[ast.AST]:
    """Texts by themselves, which are docstrings, and units: what calls are given, tables hold."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant() as text):
                yield text
            case ast.Call(args=args, keywords=keywords):
                shown = (*args, *(each.value for each in keywords))
                yield from (text for each in shown for text in ast.walk(each) if is_unit(text))
            case ast.Dict(values=values):
                yield from filter(is_unit, values)


def is_unit(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in ("B", "W")


def is_pass(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value in PASSES


def test_rooms_of_the_simulator_know_programs_only() -> None:
    breaches = [
        breach
        for source in SOURCES
        if inside(source.module, NAMELESS)
        for breach in workload_names(source)
    ]
    assert not breaches, report(breaches)


def test_the_simulator_has_few_rooms() -> None:
    rooms = {source.module.split(".")[1] for source in SOURCES if "simulator." in source.module}
    assert len(rooms) <= ROOMS_MAX, sorted(rooms)


def test_no_room_of_the_simulator_needs_itself_through_another() -> None:
    """Rooms are the folders and files at its top; the roof is not looked at."""
    needs: dict[str, set[str]] = {}
    for source in SOURCES:
        room = ".".join(source.module.split(".")[:2])
        if room.startswith("simulator.") and room != ROOF:
            found = {".".join(each.target.split(".")[:2]) for each in imports(source)}
            needs.setdefault(room, set()).update(found - {room})
    TopologicalSorter({room: others & set(needs) for room, others in needs.items()}).prepare()


@pytest.mark.parametrize(
    ("path", "text", "breaches"),
    [
        ("hwmodels/x.py", "from workloads.model import ModelSpec", 1),
        ("hwmodels/x.py", "import simulator", 1),
        ("hwmodels/fabrics/x.py", "from ..chip import ChipSpec", 0),
        ("hwmodels/fabrics/__init__.py", "from ...workloads import ops", 1),
        ("hwmodels/x.py", "def f():\n    import torch", 1),
        ("workloads/x.py", "from hwmodels import units, spec", 0),
        ("workloads/x.py", "from hwmodels import chip", 1),
        ("workloads/x.py", "from hwmodels.chip import ChipSpec", 1),
        ("workloads/x.py", "import hwmodels.units_of_another_kind", 1),
        ("workloads/x.py", "from importlib import import_module\nimport_module('triton')", 1),
        ("simulator/x.py", "import calibration.fit.kernels", 1),
        ("simulator/price/x.py", "from simulator.engines.graph import TaskGraph", 1),
        ("simulator/price/x.py", "from simulator import tell", 1),
        ("simulator/price/x.py", "from simulator.experiment import Experiment", 1),
        ("simulator/price/x.py", "from workloads.layers import Layer", 1),
        ("simulator/lower/x.py", "from workloads.program import Program", 0),
        ("simulator/lower/x.py", "from workloads.schedules.step import Step", 1),
        ("simulator/lower/x.py", "from simulator.engines.graph import TaskGraph", 0),
        ("simulator/lower/x.py", "from simulator.engines import array", 1),
        ("simulator/tell/x.py", "from simulator.driver.step import play", 1),
        ("simulator/tell/x.py", "from simulator.engines import array", 1),
        ("simulator/tell/x.py", "from simulator.price.kernels import KernelPricer", 1),
        ("simulator/driver/x.py", "from simulator.engines import array, reference", 0),
        ("simulator/published/x.py", "from simulator.driver.run import run", 0),
        ("simulator/engines/x.py", "from hwmodels.errors import InputError", 0),
        ("simulator/engines/x.py", "from hwmodels.costs import slowdown", 1),
        ("simulator/engines/x.py", "from hwmodels.chip import ChipSpec", 1),
        ("simulator/engines/x.py", "if TYPE_CHECKING:\n    from simulator.tell import result", 1),
        ("simulator/engines/x.py", "import pandas as pd", 1),
        ("simulator/network/x.py", "from simulator.engines import graph", 1),
        ("simulator/network/x.py", "def f():\n    from simulator.price import messages", 1),
        ("simulator/network/x.py", "import numba\nfrom hwmodels.cluster import ClusterSpec", 0),
        ("simulator/price/x.py", "from simulator.network.fair import finish", 0),
        ("simulator/price/x.py", "import numba", 1),
        ("simulator/tell/x.py", "import pandas as pd\nfrom simulator.engines import timeline", 0),
        ("simulator/cli/run.py", "import click\nfrom calibration.fit.kernels import fit", 0),
        ("simulator/cli/run.py", "import torch", 1),
        ("kernels/x.py", "import torch\nimport triton.language as tl", 0),
        ("kernels/x.py", "from hwmodels.errors import MachineError", 1),
        ("calibration/x.py", "from simulator.price import kernels", 1),
        (
            "calibration/measure/machine.py",
            "import json\nimport torch\nfrom kernels import gemm",
            0,
        ),
        ("calibration/measure/machine.py", "from hwmodels.errors import MachineError", 0),
        ("calibration/measure/machine.py", "from calibration.measure.timing import seconds", 0),
        ("calibration/measure/machine.py", "from calibration.fit.kernels import fit_rows", 1),
        ("calibration/measure/timing.py", "import pydantic", 1),
        ("calibration/gpu_day/parts/x.py", "from calibration.measure import numerics", 0),
        ("calibration/gpu_day/parts/x.py", "from calibration.model_ops import decode_ops", 1),
    ],
)
def test_a_crooked_arrow_is_seen(path: str, text: str, breaches: int) -> None:
    source = parse(CHECKOUT / path, text)
    assert len(list(forbidden_imports(source))) == breaches


@pytest.mark.parametrize(
    ("text", "breaches"),
    [
        ('if step.kind == "FB":\n    pass', 2),
        ('colors = {"F": blue, "W": green}', 2),
        ('any(kind == "B" for kind in kinds)', 1),
        ('passes = ("B", "W")', 2),
        ('schedule = "zb1p" if zero_bubble else "dualpipe"', 3),
        ("from workloads.schedules import dualpipe", 1),
        ("class DualPipe: ...", 1),
        ("def is_dualpipe(mla_heads): ...\nmla_heads", 3),
        ('format_quantity(power, "W")', 0),
        ('units = {"_bytes": "B"}', 0),
        ('"""DualPipe overlaps F and B."""', 0),
    ],
)
def test_a_name_of_a_workload_is_seen(text: str, breaches: int) -> None:
    source = parse(CHECKOUT / "simulator/price/x.py", text)
    assert len(list(workload_names(source))) == breaches


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("simulator", {"torch", "triton", "matplotlib", "pandas", "numba", "scipy"}),
        ("simulator.engines.array", {"numba", "scipy", "simpy", "pydantic"}),
        ("hwmodels.costs", {"numba", "scipy"}),
        ("hwmodels.residual", {"numba", "scipy", "pydantic"}),
        ("simulator.network.fair", {"numba", "scipy", "simpy", "pydantic"}),
        ("hwmodels.errors", {"numpy", "pydantic", "scipy"}),
        ("calibration", {"numpy", "pydantic", "scipy", "hwmodels", "workloads"}),
        ("calibration.judge.winners", {"torch", "triton", "numpy", "pydantic", "scipy"}),
        ("calibration.validate.rows", {"torch", "triton"}),
    ],
)
def test_importing_a_room_loads_nothing_heavy(module: str, heavy: set[str]) -> None:
    """Commands start fast, and measuring works where only numpy, torch and triton are."""
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert not heavy & loaded


def modules_after(code: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter holds after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stderr.splitlines()[-1].split())


def test_all_that_a_room_exports_is_there() -> None:
    import simulator

    assert sorted(simulator.__all__) == sorted(set(simulator.__all__))
    for name in simulator.__all__:
        assert getattr(simulator, name) is not None
