"""Seven whole results, so that a change of the house that must move no number moves none.

A law says what is right; these say what was so. Numbers agree to 1e-9, words to the letter. Where a
change is meant to move them, refresh the files and say in the changelog from what to what.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator import Experiment, run

HERE = Path(__file__).parent

# Four layers of DeepSeek-V3 with fewer experts on 64 GPUs: two expert groups on each of four ranks.
SMALL = {
    "model.layers": 4,
    "model.dense_layers": 1,
    "model.moe.routed_experts": 64,
    "cluster.nodes": 8,
    "plan.pp": 4,
    "plan.ep": 8,
    "plan.layout": "none",
    "batch.sequences": 320,
}
SHORT = {"batch.sequences": 4096}  # as few micro-batches as DualPipe takes on 16 pipeline ranks

RUNS: dict[str, dict[str, Any]] = {
    "dualpipe": SHORT,
    "zb1p": SHORT | {"plan.schedule": "zb1p"},
    "1f1b": SHORT | {"plan.schedule": "1f1b"},
    "explicit-unlike-ranks": SMALL
    | {
        "ranks.play": "explicit",
        "ranks.expert_load.sigma": 0.2,
        "ranks.expert_load.correlation": 0.5,
        "ranks.gpu_speed_sigma": 0.02,
        "ranks.jitter": 0.03,
        "ranks.stragglers": [{"gpu": 21, "part": "nic", "slowdown": 3.0}],
    },
    "exposed": SHORT | {"communication.exposed_rate": 0.9, "communication.lent_sms": 0.5},
    "shared-nics": SHORT | {"communication.nics": "shared"},
    "faulty-fabric": {"cluster": "h800-2048-ft2"}
    | SMALL
    | {
        "cluster.faults": ["nic:2.1=0.5"],
        "communication.routing": "ecmp",
    },
}


def told(name: str) -> Any:
    """Return the result of a run as plain values, without its inputs and what a clock showed."""
    result = run(Experiment.load("deepseek-v3-pretrain").with_overrides(RUNS[name]))
    left_out = {"experiment": True, "timing": True, "provenance": {"sources"}}
    return result.model_dump(mode="json", exclude=left_out)


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Return where two trees of plain values differ, a line each."""
    if isinstance(was, dict) and isinstance(now, dict):
        keys = sorted(was.keys() | now.keys())
        return [
            line
            for key in keys
            for line in differences(was.get(key), now.get(key), f"{path}.{key}".strip("."))
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{path}[{i}]")]
    is_number = isinstance(was, int | float) and isinstance(now, int | float)
    same = now == pytest.approx(was, rel=1e-9, abs=1e-15) if is_number else was == now
    return [] if same else [f"{path}: was {was!r}, is {now!r}"]


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_result_is_what_it_was(name: str, refreshing: bool) -> None:
    file = HERE / f"{name}.json"
    now = told(name)
    if refreshing:
        file.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    was = json.loads(file.read_text(encoding="utf-8"))
    lines = differences(was, now)
    assert not lines, "\n".join(["", *lines[:20], f"{len(lines)} values differ"])


def test_every_golden_file_is_of_a_run() -> None:
    assert {file.stem for file in HERE.glob("*.json")} == set(RUNS)


def test_a_moved_number_is_seen() -> None:
    was = {"a": [1.0, {"b": "x"}], "c": 2}
    assert differences(was, {"a": [1.0, {"b": "x"}], "c": 2}) == []
    assert differences(was, {"a": [1.0 + 1e-8, {"b": "x"}], "c": 2}) == [
        "a[0]: was 1.0, is 1.00000001"
    ]
    assert len(differences(was, {"a": [1.0, {"b": "y"}]})) == 2
