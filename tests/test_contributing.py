"""CONTRIBUTING, followed: one file of each kind added to a copy of the sources, and used there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


SMALL = {
    "model.layers": 8,
    "plan.layout": "none",
    "plan.pp": 4,
    "plan.ep": 8,
    "cluster.nodes": 8,
    "batch.sequences": 160,
    "profile": "none",
    "cluster.node.chip.hbm_capacity_bytes": "'2 TB'",
}
DENSE = (
    {"model": "llama3.1-405b"}
    | SMALL
    | {
        "model.dense_layers": 8,
        "plan.ep": 1,
        "precision.recipe": "bf16",
        "communication.dispatch": "none",
    }
)


def trained(folder: Path, values: dict[str, Any]) -> Any:
    """Return the result of a short step with some values set, as the command prints it."""
    settings = [text for path, value in values.items() for text in ("--set", f"{path}={value}")]
    return json.loads(moesim(folder, "run", "deepseek-v3-pretrain", *settings, "--json"))


def compute_share(result: Any) -> dict[str, float]:
    """Return the shares of kernel families."""
    (kernels,) = (facts for facts in result["facts"] if facts["kind"] == "kernels")
    shares: dict[str, float] = kernels["compute_share"]
    return shares


def test_an_attention_block_is_one_file(copied) -> None:
    """A gate on what attention gives, computed from the hidden state (arXiv 2505.06708)."""
    text = '''"""Grouped queries whose output is gated: o(sigmoid(W x) * attention(x))."""

from typing import Literal

from workloads.blocks import Site
from workloads.blocks.gqa import GQASpec
from workloads.ops import MemoryOp
from workloads.recipes import Passes


class GatedGQA(GQASpec):
    """A gate for every column of the output."""

    kind: Literal["gated-gqa"] = "gated-gqa"

    def projection_parameters(self, hidden: int) -> int:
        return super().projection_parameters(hidden) + hidden * self.heads * self.d_head

    def passes(self, site: Site) -> Passes:
        t, width = site.tokens, self.heads * self.d_head
        gate = Passes(
            (MemoryOp("gate", "gate", t * width * 6),),
            (MemoryOp("gate backward", "gate", t * width * 10),),
            saved_bytes=t * width * 4,
        )
        return super().passes(site) + site.recipe.linear("gate", t, width, site.hidden) + gate
'''
    add(copied, "workloads/blocks/gated_gqa.py", text)
    gated = trained(copied, DENSE | {"model.attention.kind": "gated-gqa"})
    plain = trained(CHECKOUT, DENSE)
    assert gated["experiment"]["model"]["attention"]["kind"] == "gated-gqa"
    assert 0 < compute_share(gated)["gate"] < 0.1
    assert "gate" not in compute_share(plain)
    memory = [max(each["memory_bytes"].values()) for each in (gated, plain)]
    assert memory[0] > memory[1]
    assert gated["metrics"]["step_time_s"] > plain["metrics"]["step_time_s"]


def test_an_ffn_is_one_file(copied) -> None:
    """Squared ReLU without a gate (arXiv 2109.08668)."""
    text = '''"""An FFN without a gate: down(relu(up(x)) ** 2)."""

from typing import Literal

from hwmodels.units import Width
from workloads.blocks import FFNSpec, Site
from workloads.ops import MemoryOp
from workloads.recipes import Passes


class SquaredReLU(FFNSpec):
    """Two projections and a square between them."""

    kind: Literal["relu2"] = "relu2"
    width: Width

    def parameters(self, hidden: int, *, activated: bool = False) -> int:
        return 2 * hidden * self.width

    def passes(self, site: Site) -> Passes:
        t, h, w, recipe = site.tokens, site.hidden, self.width, site.recipe
        square = Passes(
            (MemoryOp("relu2", "relu2", t * w * 4),),
            (MemoryOp("relu2 backward", "relu2", t * w * 6),),
            saved_bytes=t * w * 4,
        )
        up, down = recipe.linear("up", t, w, h), recipe.linear("down", t, h, w)
        return recipe.norm("ffn", t, h) + up + square + down
'''
    add(copied, "workloads/blocks/relu2.py", text)
    table = "{kind='relu2', width=53248}"
    squared = trained(copied, DENSE | {"model.dense_ffn_width": 0, "model.dense_ffn": table})
    assert compute_share(squared)["relu2"] > 0
    assert "swiglu" not in compute_share(squared)


def test_a_recipe_is_one_file(copied) -> None:
    text = '''"""BF16, norms and up-projections computed again on the way back."""

from workloads.recipes.bf16 import Bf16


class Recomputing(Bf16):
    """Less is kept."""

    name = "bf16-recompute"
    recomputes = True
'''
    add(copied, "workloads/recipes/bf16_recompute.py", text)
    again, kept = (
        trained(copied, SMALL | {"precision.recipe": name}) for name in ("bf16-recompute", "bf16")
    )
    norms = [compute_share(each)["add_norm"] for each in (again, kept)]
    assert norms[0] > 1.5 * norms[1]
    memory = [max(each["memory_bytes"].values()) for each in (again, kept)]
    assert memory[0] < memory[1]
    passes(copied, "tests/unit/test_models_train.py", "bf16-recompute and mixtral")
    passes(copied, "tests/properties/test_recipe_laws.py", "attention or ffn")


def test_a_schedule_is_one_file(copied) -> None:
    text = '''"""GPipe: all forwards, then all backwards (arXiv 1811.06965)."""

from workloads.schedules.one_f_one_b import (
    bubble_s,
    check,
    minimum_microbatches,
    sizes,
    stages,
    stages_of_rank,
    step_s,
)
from workloads.schedules.step import Chunk, Program, Step

NAME = "gpipe"
PARAMETER_COPIES = 1


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    check(pp, microbatches, vpp)
    chunks = [[Chunk(rank, i) for i in range(microbatches)] for rank in range(pp)]
    return tuple(
        (*(Step("F", forward=c) for c in own), *(Step("B", backward=c) for c in own))
        for own in chunks
    )


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
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
