"""The command of the day on a borrowed GPU: its list of parts, what it refuses and needs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")
pytest.importorskip("torch", reason="needs PyTorch and Triton")

from calibration.gpu_day.__main__ import main
from calibration.gpu_day.parts import parts
from calibration.gpu_day.sizes import OPS, RealSizes

CHECKOUT = Path(__file__).resolve().parents[2]


def test_parts_are_in_order_and_share_the_day() -> None:
    """Nothing is told of a kernel before its numbers were checked."""
    assert list(parts())[:3] == ["device", "numerics", "ops"]
    assert sum(each.SHARE for each in parts().values()) == pytest.approx(1.0)
    numbers = [each.NUMBER for each in parts().values()]
    assert numbers == sorted(set(numbers))


def test_the_list_says_what_each_part_takes_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(parts())
    for line in lines:
        assert " s  " in line
        assert len(line.split(" s  ")[1]) > 20


def test_the_first_three_parts_fit_into_a_minute() -> None:
    sizes = RealSizes()
    wants = [each.estimate(sizes).seconds for each in list(parts().values())[:3]]
    assert sum(wants) < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x", "--only", "numerik"], "did you mean 'numerics'"),
        (["--out", "x", "--budget", "1"], "--budget: from 10 to 86400 s, got 1"),
        ([], "--out: names the folder of the day"),
        (["--out", __file__], "must be a folder, got a file"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_day_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "day.json").write_text("{}")
    assert main(["--out", str(tmp_path)]) == 2
    assert "--resume goes on with it" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert main(["--out", str(tmp_path / "day")]) == 3
    assert capfd.readouterr().err == "no GPU: PyTorch sees no CUDA device here\n"
    assert not (tmp_path / "day").exists()


def test_the_ops_are_those_of_the_model(invoke) -> None:
    """`moesim calibrate ops > calibration/gpu_day/ops.json` would change nothing."""
    assert invoke("calibrate", "ops").output == OPS.read_text()


def test_it_needs_nothing_but_numpy_torch_and_triton() -> None:
    """A bare GPU image lacks what the simulator needs."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "simpy", "networkx", "numba", "scipy", "pandas",
                                  "matplotlib", "rich", "click", "pyarrow"}:
            raise ModuleNotFoundError(f"{name} is not on a GPU machine")
sys.meta_path.insert(0, Refuse())
import calibration.measure.ahead, calibration.gpu_day.run, calibration.gpu_day.dry
from calibration.gpu_day.__main__ import main
sys.exit(main(["--list"]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
