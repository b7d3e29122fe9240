"""moesim calibrate --from-trace: what is told, written and refused."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from calibration.fit.families import cost_model
from calibration.rows import KernelRows, Setting, sites
from hwmodels.chip import CHIPS
from hwmodels.errors import CalibrationError, InputError
from hwmodels.profile import PROFILES
from tests.kineto import Kineto, training_step


@pytest.fixture
def step(tmp_path: Path) -> Path:
    return training_step().write(tmp_path / "step.json")


def test_a_training_step_is_told_as_tables(invoke, step: Path) -> None:
    result = invoke("calibrate", "--from-trace", step)
    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    assert "10 kernels and 1 copies on NVIDIA H100 80GB HBM3" in told
    assert "all_to_all" in told
    assert "unclassified: 1 names, 3.7% of all kernels' time" in told  # 10 of 273 us
    assert "xyzzy_kernel" in told


def test_the_document_has_all_that_the_tables_have(invoke, step: Path) -> None:
    told = json.loads(invoke("calibrate", "--from-trace", step, "--json").stdout)
    assert (told["kernels"], told["copies"]) == (10, 1)
    assert told["busy_s"]["communication"] == pytest.approx(100e-6)
    assert told["hidden_s"] == pytest.approx(2 * (32 + 16) * 1e-6)
    assert told["annotations"] == {"ProfilerStep#1": 1, "layer": 2}
    assert told["shapes"] == [{"kind": "gemm", "family": "bf16", "rows": 2}]
    assert told["unclassified"][0]["name"] == "xyzzy_kernel"


def test_streams_and_composition_are_drawn(invoke, step: Path, tmp_path: Path) -> None:
    figure = tmp_path / "t.png"
    assert invoke("calibrate", "--from-trace", step, "--figure", figure).exit_code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")


def products(count: int) -> Kineto:
    """A trace of BF16 products that take what known constants say on an H100."""
    chip, rng = CHIPS.load("h100"), np.random.default_rng(0)
    m, n, k = (rng.choice([256, 512, 1024, 2048, 4096, 8192], count) for _ in range(3))
    shape = {"m": m * 1.0, "n": n * 1.0, "k": k * 1.0, "tensor_family": "bf16",
             "element_bytes": 2.0, "output_bytes": 2.0}  # fmt: skip
    rows = KernelRows(Setting("h100", "pytorch", "traced"), "gemm", "bf16", shape, np.ones(count),
                      sites(n, k), m * 1.0, "made up")  # fmt: skip
    truth = cost_model(rows, chip).starts[0].model_copy(update={"tensor_efficiency": 0.8})
    trace, now = Kineto(), 10.0
    for place, time_s in enumerate(rows.price_s(chip, truth)):
        sizes = [[int(m[place]), int(k[place])], [int(k[place]), int(n[place])]]
        trace.kernel("nvjet_tst_128x256", now, 1e6 * time_s, op="aten::mm", sizes=sizes)
        now += 1e6 * time_s + 2
    return trace


def test_a_profile_is_fitted_to_recorded_shapes(invoke, tmp_path: Path) -> None:
    """Of constants that were known: on shapes left out, prices are the times of the trace."""
    out = tmp_path / "p.toml"
    path = products(60).write(tmp_path / "t.json")
    assert invoke("calibrate", "--from-trace", path, "--out", out).exit_code == 0
    document = tomllib.loads(out.read_text(encoding="utf-8"))
    assert (document["chip"], document["library"]) == ("h100", "pytorch")
    assert document["errors"]["bf16_median"] < 0.02
    assert "t.json" in document["sources"]["gemm.bf16.tensor_efficiency"]
    assert PROFILES.load(str(out)).gemm["bf16"].tensor_efficiency == pytest.approx(0.8, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--figure", "t.gif"), "--figure: must end in one of"),
        (("--out", "p.toml", "--model", "deepseek-v3"), "--model: goes with a DualPipe trace"),
        (("--out", "p.toml", "--gemm-table", "t"), "--gemm-table: goes with a DualPipe trace"),
        (("--out", "p.toml", "--chip", "h20"), "chip h20 has 78 SMs, NVIDIA H100 80GB HBM3 has"),
        (("--out", "p.toml", "--chip", "h1000"), "unknown preset; did you mean 'h100'"),
    ],
)
def test_what_does_not_go_with_a_trace_is_refused(
    invoke, step: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        invoke("calibrate", "--from-trace", step, *options)


def test_a_trace_without_shapes_gives_no_profile(invoke, tmp_path: Path) -> None:
    trace = Kineto()
    trace.kernel("nvjet_tst_128x256", 10, 5)
    with pytest.raises(CalibrationError, match=r"no family has 2 shapes to fit; profile with rec"):
        invoke("calibrate", "--from-trace", trace.write(tmp_path / "t"), "--out", tmp_path / "p")


def test_options_of_a_trace_do_not_go_with_a_command(invoke) -> None:
    result = invoke("calibrate", "--out", "p.toml", "score", "t")
    assert result.exit_code == 2
    assert "go with --from-trace alone" in result.output
    assert "needs a command or --from-trace" in invoke("calibrate", "--json").output


def test_what_torch_writes_without_a_gpu_is_read_and_told_what_it_lacks(
    invoke, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from torch.profiler import ProfilerActivity, profile, record_function

    path = tmp_path / "cpu.json"
    layer = torch.nn.Linear(64, 32)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        for _ in range(3):
            with record_function("step"):
                layer(torch.ones(8, 64)).sum().backward()
    profiler.export_chrome_trace(str(path))
    result = invoke("calibrate", "--from-trace", path, "--json")
    told = json.loads(result.stdout)
    assert "no kernel on a device" in told["lacks"]
    assert told["annotations"]["step"] == 3
    assert sum(thread["shaped"] for thread in told["threads"].values()) > 0
    products = [op for op in told["ops"] if op["name"] == "aten::addmm"]
    assert [(op["sizes"][1:3], op["calls"]) for op in products] == [([[8, 64], [64, 32]], 3)]
    assert "ops with shapes" in invoke("calibrate", "--from-trace", path).stdout
    with pytest.raises(CalibrationError, match="no kernel on a device"):
        invoke("calibrate", "--from-trace", path, "--out", tmp_path / "p.toml")
