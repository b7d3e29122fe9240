"""What DeepSeek's published H800 training trace is made of, read as anybody's trace.

deepseek-ai/profile-data @4496024: four layer pairs, one forward and one backward chunk. The shares
were added up by hand once, from ops named one by one: 31.07 ms of kernels in a layer pair.
"""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from calibration.fit.traced_profile import traced
from calibration.judge.composition import Composition, compose
from calibration.read.torch_trace import TorchTrace, read_torch_trace
from hwmodels.profile import PROFILES

LAYER_PAIRS = 4


@pytest.fixture(scope="module")
def path(measured_data: Path) -> Path:
    return measured_data / "traces" / "deepseek_v3_h800_train.json.gz"


@pytest.fixture(scope="module")
def trace(path: Path) -> TorchTrace:
    return read_torch_trace(path)


@pytest.fixture(scope="module")
def found(trace: TorchTrace) -> Composition:
    return compose(trace)


def test_all_963_kernels_are_classified(found: Composition) -> None:
    assert (found.kernels, found.copies) == (963, 20)
    assert found.unclassified == ()


def test_the_machine_is_what_the_file_says(trace: TorchTrace) -> None:
    assert (trace.device, trace.sms, trace.ranks, trace.unlaunched) == ("NVIDIA H800", 132, 64, 0)


def test_a_layer_pair_computes_for_31_ms(found: Composition) -> None:
    """56 % products, 16 % attention cores, 28 % all the rest."""
    assert found.busy_s["compute"] / LAYER_PAIRS == pytest.approx(31.07e-3, abs=0.005e-3)
    shares = {group: round(share, 2) for group, share in found.shares().items()}
    assert shares == {"GEMM": 0.56, "attention": 0.16, "glue": 0.28}


def test_notify_is_28_percent_of_the_communication_stream(found: Composition) -> None:
    """32.6 of 114.5 ms, dispatch 31.0 and combine 49.4."""
    assert found.busy_s["communication"] == pytest.approx(114.5e-3, abs=0.05e-3)
    times_s = {part.name: part.time_s for part in found.of("communication")}
    assert times_s["notify"] == pytest.approx(32.6e-3, abs=0.05e-3)
    assert times_s["notify"] / 114.5e-3 == pytest.approx(0.28, abs=0.005)
    assert times_s["dispatch"] == pytest.approx(31.0e-3, abs=0.05e-3)
    assert times_s["combine"] == pytest.approx(49.4e-3, abs=0.06e-3)


def test_products_hold_112_sms_and_the_exchange_20(found: Composition) -> None:
    held = {(part.name, part.family): part.sms for part in found.parts}
    assert held["gemm", "fp8_block"] == held["grouped gemm", "fp8_block_grouped"] == 112
    assert held["dispatch", "deepep"] == held["combine", "deepep"] == 20


def test_slowdowns_are_near_those_of_ops_named_one_by_one(trace: TorchTrace) -> None:
    """Recurring kernels against `h800-deepseek`; expert loads, which vary, are not known here."""
    shipped = PROFILES.load("h800-deepseek").interference
    factors = {kind.family or kind.name: f.value for kind, f in traced(trace).factors.items()}
    assert factors["fp8_block"] == pytest.approx(shipped["fp8_block"], abs=0.02)
    assert factors["rotary"] == pytest.approx(shipped["rotary"], abs=0.03)
    assert factors["fp8"] == pytest.approx(shipped["cast"], abs=0.03)


def test_the_command_writes_the_profile_that_ships(path: Path, tmp_path: Path) -> None:
    """Without tables of BF16 products, which the trace has none of, these stay as they ship."""
    out = tmp_path / "p.toml"
    command = [sys.executable, "-c", MEASURED, "calibrate", "--from-trace", str(path)]
    run = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    shipped = (PROFILES.folder / "h800-deepseek.toml").read_text(encoding="utf-8")
    check_alike(tomllib.loads(out.read_text(encoding="utf-8")), tomllib.loads(shipped))
    if run.stderr.split()[-1].isdigit():
        assert int(run.stderr.split()[-1]) * 1024 < 300e6


def check_alike(written: Any, shipped: Any) -> None:
    """Same keys and texts; numbers to the digits that another linear algebra may change."""
    if isinstance(shipped, dict):
        assert written.keys() == shipped.keys()
        for key in shipped:
            check_alike(written[key], shipped[key])
    elif isinstance(shipped, float):
        assert written == pytest.approx(shipped, rel=5e-3, abs=1e-9)
    else:
        assert written == shipped


MEASURED = """
import re, sys
from pathlib import Path
from simulator.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status")
    if status.exists():
        print(re.search("VmHWM:\\\\s+(\\\\d+)", status.read_text())[1], file=sys.stderr)
"""
"""The command, and how much memory it held at most, in KiB, where the system tells."""
