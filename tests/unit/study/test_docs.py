"""The page in docs/ that walks from one run to a study to a decision, run as it stands."""

import re
import subprocess
import sys
from pathlib import Path

from simulator import StudyTable

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_page_runs_and_its_gains_are_those_of_its_table(tmp_path):
    folder = tmp_path / "decision"
    done = subprocess.run(
        [sys.executable, "docs/decision.py", str(folder)],
        cwd=CHECKOUT, env={"PYTHONPATH": str(CHECKOUT), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = StudyTable.load(folder)
    assert len(table.feasible) == 2**3
    step_s = table.frame.set_index(["nvlink", "nic", "hbm"])["step_time_s"]
    now, best = step_s.iloc[0], step_s.iloc[-1]
    assert best == step_s.min(), "twice of all is fastest"
    said = {name: float(gain) for name, gain in re.findall(r"(\w+) *: +([\d.]+)% off", done.stdout)}
    assert set(said) == {"nvlink", "nic", "hbm"}
    hbm = step_s.iloc[1]  # the last axis moves fastest
    assert abs(said["hbm"] - 100 * (1 - hbm / now)) < 0.06
    assert f"{100 * (1 - best / now):.1f}%" in done.stdout
