"""CONTRIBUTING, followed: one file of each kind added to a copy of the sources, and used there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ("hwmodels", "workloads", "simulator", "kernels", "calibration")

GUIDE = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def copied(tmp_path):
    """Sources to add one file to; nothing else of them is changed."""
    for name in (*SOURCES, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=ignored)
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def add(folder: Path, place: str, text: str) -> None:
    """Add one file where CONTRIBUTING says that its kind belongs."""
    assert f"`{place.rpartition('/')[0]}/" in GUIDE.replace("{chips,nodes,clusters}", "chips")
    (folder / place).write_text(text, encoding="utf-8")


def python(folder: Path, *arguments: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def passes(folder: Path, tests: str, name: str) -> None:
    """Run the tests that every one of its kind has to pass, on the new one."""
    told = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, "-k", name)
    assert " passed" in told


def moesim(folder: Path, *arguments: str) -> str:
    return python(folder, "-m", "simulator.cli", *arguments)


def test_a_chip_is_one_file(copied) -> None:
    text = """base = "h800"
hbm_bytes_per_s = "6.7 TB/s"

[assumed]
hbm_bytes_per_s = "twice that of an H800, for a study"
"""
    add(copied, "hwmodels/presets/chips/h801.toml", text)
    assert "h801" in moesim(copied, "list", "chips")
    chip = ("--set", "cluster.node.chip=h801", "--set", "batch.sequences=4096", "--json")
    changed = json.loads(moesim(copied, "run", "deepseek-v3-pretrain", *chip))
    assert changed["experiment"]["cluster"]["node"]["chip"]["name"] == "h801"
    passes(copied, "tests/test_presets.py", "h801")


def test_a_fabric_is_one_file(copied) -> None:
    text = '''"""Rails with twice the switches."""

from typing import Literal

from hwmodels.fabrics.clos import Clos
from hwmodels.fabrics.rail_only import RailOnly


class Twins(RailOnly):
    """Two switches side by side for each rail."""

    kind: Literal["twins"] = "twins"

    def clos(self, endpoints: int) -> Clos:
        return Clos(2 * self.planes, leaves=1, pod_leaves=1)
'''
    add(copied, "hwmodels/fabrics/twins.py", text)
    twins = ("--set", "cluster.fabric.kind=twins", "--json")
    told = json.loads(moesim(copied, "show", "cluster", "h800-512-rail-only", *twins))
    assert told["network"]["switches"] == 16


def test_a_block_is_one_file_and_a_place_in_layers(copied) -> None:
    """A gate behind the attention of dense layers: a segment of its own, forward and backward."""
    text = '''"""A gate on what attention gives."""

from workloads.layers import LayerInputs, PhaseOps
from workloads.ops import MemoryOp


def gate(inputs: LayerInputs) -> PhaseOps:
    size = 4.0 * inputs.tokens * inputs.model.hidden
    return PhaseOps(
        forward=(MemoryOp("gate", "cast", size),),
        backward=(MemoryOp("gate gradient", "cast", 2 * size),),
    )
'''
    add(copied, "workloads/layers/gate.py", text)
    build = copied / "workloads/layers/build.py"
    listed = build.read_text(encoding="utf-8")
    before = "(Block(ATTN, mla.mla(inputs)), Block(MLP,"
    assert before in listed
    listed = listed.replace(
        before, before.replace(", Block", ", Block('gate', gate(inputs)), Block")
    )
    build.write_text(f"{listed}\n\nfrom workloads.layers.gate import gate\n", encoding="utf-8")
    short = ("deepseek-v3-pretrain", "--set", "batch.sequences=4096")
    moesim(copied, "run", *short, "--out", str(copied / "out"), "--trace", "segments")
    trace = (copied / "out" / "trace.json").read_text(encoding="utf-8")
    assert all(f'"gate({pass_}) {layer}"' in trace for pass_ in "FB" for layer in (0, 1, 2))
    gated = json.loads((copied / "out" / "result.json").read_text(encoding="utf-8"))
    plain = json.loads(python(CHECKOUT, "-m", "simulator.cli", "run", *short, "--json"))
    shares = [
        facts["compute_share"]["cast"]
        for each in (plain, gated)
        for facts in each["facts"]
        if facts["kind"] == "kernels"
    ]
    assert shares[0] < shares[1]


def test_a_schedule_is_one_file(copied) -> None:
    text = '''"""GPipe: all forwards, then all backwards (arXiv 1811.06965)."""

from workloads.schedules.one_f_one_b import bubble_s, check, minimum_microbatches, stages_of_rank
from workloads.schedules.step import Chunk, Program, Step

NAME = "gpipe"
PARAMETER_COPIES = 1


def steps(pp: int, microbatches: int) -> Program:
    check(pp, microbatches)
    chunks = [[Chunk(rank, i) for i in range(microbatches)] for rank in range(pp)]
    return tuple(
        (*(Step("F", forward=c) for c in own), *(Step("B", backward=c) for c in own))
        for own in chunks
    )


def chunks_in_flight(pp: int, microbatches: int) -> int:
    return microbatches
'''
    add(copied, "workloads/schedules/gpipe.py", text)
    plan = ("--set", "plan.schedule=gpipe", "--set", "batch.sequences=2048", "--json",
            "--set", "cluster.node.chip.hbm_capacity_bytes='2 TB'")  # fmt: skip
    played = json.loads(moesim(copied, "run", "deepseek-v3-pretrain", *plan))
    assert played["metrics"]["step_time_s"] > 0
    (told,) = (facts for facts in played["facts"] if facts["kind"] == "parts")
    assert {part["name"].split()[0] for part in told["parts"]} == {"F", "B"}
    passes(copied, "tests/oracles/test_schedules.py", "chunks_idle or found or in_flight")
    passes(copied, "tests/properties/test_schedule_laws.py", "holds_more or doubling")


def test_a_kind_of_facts_is_one_file(copied) -> None:
    text = '''"""How many tasks a second of the step is made of."""

from typing import Literal

from rich.console import Console

from simulator.lower.played import Played
from simulator.tell.facts import Facts


class Density(Facts):
    """Tasks for each second of the step."""

    kind: Literal["density"] = "density"
    tasks_per_s: float

    @classmethod
    def of(cls, played: Played) -> "Density":
        return cls(tasks_per_s=played.tasks / played.times.step_s)

    def show(self, console: Console) -> None:
        console.print(f"{self.tasks_per_s:.0f} tasks a second of the step")
'''
    add(copied, "simulator/tell/facts/density.py", text)
    short = ("run", "deepseek-v3-pretrain", "--set", "batch.sequences=4096")
    assert "tasks a second of the step" in moesim(copied, *short, "--out", str(copied / "out"))
    told = json.loads((copied / "out" / "result.json").read_text(encoding="utf-8"))
    (density,) = (each for each in told["facts"] if each["kind"] == "density")
    rate = told["play"]["tasks"] / told["metrics"]["step_time_s"]
    assert density["tasks_per_s"] == pytest.approx(rate)
    passes(copied, "tests/unit/test_result_kinds.py", "density")


def test_an_algorithm_of_collectives_is_one_file(copied) -> None:
    text = '''"""A ring whose bytes all go twice."""

from simulator.network.collectives import ring
from simulator.network.collectives.plan import Plan
from simulator.network.links import Network
from simulator.network.placement import Group

NAME = "double-ring"
MAKES = ("all_gather",)


def plan(network: Network, group: Group, kind: str) -> Plan:
    return ring.plan(network, group, kind).twice()
'''
    add(copied, "simulator/network/collectives/double_ring.py", text)
    assert "double-ring" in moesim(copied, "collective", "--help")
    sizes = ("--ranks", "16", "--bytes", "1 GiB", "--cluster", "h800-2048-mpft", "--json")
    one, two, fastest = (
        json.loads(moesim(copied, "collective", "all_gather", *sizes, "--algorithm", name))
        for name in ("ring", "double-ring", "auto")
    )
    assert two["time_s"] > 1.9 * one["time_s"]
    assert fastest["time_s"] <= one["time_s"]
    passes(copied, "tests/oracles/test_collectives_on_network.py", "all_gather or known_by")


def test_a_kernel_is_one_file(copied) -> None:
    text = (copied / "kernels" / "probe_copy.py").read_text(encoding="utf-8")
    add(copied, "kernels/probe_twin.py", text)
    code = """
from calibration.gpu_day.parts import parts
from calibration.gpu_day.sizes import TinySizes
from kernels import load, names
assert "probe_twin" in names()
op = load("probe_twin")
arguments = op.inputs({"bytes": 4000}, "cpu")
assert (op.launch(**arguments) == op.reference(**arguments)).all()
print(*{point.kernel for part in parts().values() for point in part.points(TinySizes())})
"""
    assert "probe_twin" in python(copied, "-c", code, TRITON_INTERPRET="1").split()
