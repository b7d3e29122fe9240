"""The command `validate`: rows judged anywhere, verdicts printed whatever they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.gpu_day.files import BLOCKING, EAGER, GRAPH, STACK
from calibration.measure.measurement import DRY_DEVICE
from calibration.stack.dimensions import DEEPSEEK_V3
from calibration.stack.names import DEPTH
from calibration.validate.ops import op_of
from hwmodels.chip import CHIPS
from hwmodels.errors import InputError
from simulator.price.kernels import KernelPricer
from tests.unit.days import timed, write_day
from tests.unit.stacks import BACKWARD, FORWARD, OPS, op_row, stack_rows, total_row, write_stack

CHECKOUT = Path(__file__).resolve().parents[2]
CHIP = CHIPS.load("h100")


def roofline_s(ran) -> float:
    op = op_of(ran.op, ran.kernel, ran.shape, DEEPSEEK_V3)
    return float(KernelPricer(CHIP, None, CHIP.sms).price([op]).total_s[0])


@pytest.fixture
def perfect(tmp_path) -> Path:
    """A forward layer that runs at the roofline, launched in 10 us an op; totals by closed form."""
    ops = [ran._replace(time_s=roofline_s(ran)) for ran in OPS[FORWARD]]
    device_s = sum(ran.time_s for ran in ops)
    totals = {
        EAGER: 10e-6 + device_s,  # no kernel of it is shorter than a launch
        BLOCKING: len(ops) * 10e-6 + device_s,
        GRAPH: device_s,
    }
    return write_stack(tmp_path / STACK, stack_rows({FORWARD: ops}, totals))


def test_rows_that_are_as_simulated_have_no_error(invoke, perfect: Path) -> None:
    result = invoke("validate", "--rows", perfect, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert min(roofline_s(ran) for ran in OPS[FORWARD]) > 10e-6
    assert (found["chip"], found["basis"]) == ("h100", "roofline of h100")
    for line in (*found["totals"], *found["families"]):
        assert line["error"] == pytest.approx(0, abs=1e-9), line
        assert line["within"] is (None if line.get("mode") == BLOCKING else True)
    assert [op["op"] for op in found["ops"] if not op["in_workload"]] == ["more"]
    assert "attn(F): rotary q" in found["unmeasured"]


def test_a_stack_is_played_through_its_layers(invoke, tmp_path) -> None:
    """A host of 2 ms a launch is the time, but for the last kernel: four times forward and back."""
    found = json.loads(
        invoke(
            "validate", "--rows", write_stack(tmp_path / STACK, stack_rows()),
            "--host-launch", "2ms", "--json",
        ).stdout
    )  # fmt: skip
    times = {(line["layer"], line["mode"]): line["simulated_s"] for line in found["totals"]}
    trained = [*OPS[FORWARD], *OPS[BACKWARD]]
    kernels_s = sum(roofline_s(ran) for ran in trained)
    launches = DEPTH * len(trained)
    assert max(roofline_s(ran) for ran in trained) < 2e-3
    assert times["train_stack", GRAPH] == pytest.approx(DEPTH * kernels_s)
    assert times["train_stack", EAGER] == pytest.approx(launches * 2e-3 + roofline_s(trained[-1]))
    assert times["train_stack", BLOCKING] == pytest.approx(launches * 2e-3 + DEPTH * kernels_s)


def test_what_has_no_total_is_left_out_and_said(invoke, tmp_path) -> None:
    rows = [row for row in stack_rows() if (row["layer"], row["op"]) != (BACKWARD, "total")]
    result = invoke("validate", "--rows", write_stack(tmp_path / STACK, rows), "--json")
    found = json.loads(result.stdout)
    assert found["notes"] == [f"{BACKWARD}: 2 ops without a total are not judged"]
    assert not [op for op in found["ops"] if op["layer"] == BACKWARD]
    whys = {line["why"] for line in found["totals"] if line["layer"] == "train_stack"}
    assert whys == {"a layer of it was not measured"}


def test_verdicts_are_printed_and_fail_nothing(invoke, tmp_path) -> None:
    result = invoke("validate", "--rows", write_stack(tmp_path / STACK, stack_rows()))
    assert result.exit_code == 0
    assert "missed" in result.stdout
    assert "roofline of h100" in result.stdout
    assert "attn(F) measured: more" in result.stdout


def test_a_host_is_as_given_or_as_measured_or_not_simulated(invoke, tmp_path) -> None:
    ops = {FORWARD: [ran._replace(host_s="") for ran in OPS[FORWARD]]}
    path = write_stack(tmp_path / STACK, stack_rows(ops))
    lines = {line["mode"]: line for line in totals_of(invoke, path)}
    assert lines[GRAPH]["within"] is False
    assert (lines[EAGER]["within"], lines[EAGER]["simulated_s"]) == (None, None)
    assert "--host-launch gives one" in lines[EAGER]["why"]
    lines = {line["mode"]: line for line in totals_of(invoke, path, "--host-launch", "3ms")}
    last_s = roofline_s(OPS[FORWARD][-1])
    assert lines[EAGER]["simulated_s"] == pytest.approx(5 * 3e-3 + last_s)


def totals_of(invoke, path, *options):
    result = invoke("validate", "--rows", path, *options, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["totals"]


def test_a_profile_prices_gaps_and_families(invoke, perfect: Path) -> None:
    result = invoke("validate", "--rows", perfect, "--profile", "h800-deepseek", "--json")
    found = json.loads(result.stdout)
    basis = "profile h800-deepseek, transferred from h800 to h100"
    assert {op["basis"] for op in found["ops"]} == {basis}
    (graph,) = (line for line in found["totals"] if line["mode"] == GRAPH)
    kernels_s = sum(op["simulated_s"] for op in found["ops"])
    assert graph["simulated_s"] == pytest.approx(kernels_s + 5 * 1.99e-6)


def test_a_day_prices_its_layer_by_its_own_kernels(invoke, tmp_path) -> None:
    """Norms that reach 80 % of the bandwidth and take 4 us more: so is that of the layer."""
    shapes = [
        {"m": m, "k": k, "residual": 1} for m in (512, 2048, 8192, 32768) for k in (2048, 8192)
    ]
    norms = [
        timed("rmsnorm", shape, size / (0.8 * CHIP.hbm_bytes_per_s) + 4e-6, bytes=size)
        for shape in shapes
        for size in [shape["m"] * shape["k"] * 8.0]
    ]
    day = write_day(tmp_path / "day", norms)
    size = 4096 * 7168 * 8.0
    write_stack(
        day / STACK,
        [op_row(FORWARD, OPS[FORWARD][0], bytes=size), total_row(FORWARD, GRAPH, 1e-4)],
    )
    found = json.loads(invoke("validate", "--rows", day, "--json").stdout)
    (op,) = found["ops"]
    assert op["basis"] == "profile of this day"
    assert op["simulated_s"] == pytest.approx(size / (0.8 * CHIP.hbm_bytes_per_s) + 4e-6, rel=0.03)
    other = json.loads(invoke("validate", "--rows", day, "--profile", "none", "--json").stdout)
    assert other["basis"] == "roofline of h100"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "ROWS", "--out", "x"], "got both"),
        (["--rows", "ROWS", "--resume"], "got both"),
        (["--rows", "nowhere.csv"], "got nothing there"),
        (["--rows", "ROWS", "--chip", "h101"], "did you mean 'h100'"),
        (["--rows", "ROWS", "--profile", "h800"], "unknown preset; known: "),
        (["--rows", "ROWS", "--host-launch", "5"], "from 0 to 1 s"),
        (["--rows", "ROWS", "--host-launch", "5 m"], "expected a unit"),
        (["--rows", "ROWS", "--chip", "a100"], "no 'fp8' tensor rate"),
        (["--rows", "ROWS", "--trace", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_input_is_one_line(invoke, perfect: Path, options, message) -> None:
    with pytest.raises(InputError) as refused:
        invoke("validate", *(perfect if word == "ROWS" else word for word in options))
    assert message in str(refused.value)


def test_a_device_that_no_preset_is_named_after_needs_a_chip(invoke, tmp_path) -> None:
    rows = [row | {"device": "NVIDIA GB10"} for row in stack_rows()]
    path = write_stack(tmp_path / STACK, rows)
    with pytest.raises(InputError, match="no chip preset is a NVIDIA GB10; --chip names one"):
        invoke("validate", "--rows", path)
    assert invoke("validate", "--rows", path, "--chip", "h200").exit_code == 0


def test_a_dry_run_is_refused(invoke, tmp_path) -> None:
    rows = [row | {"device": DRY_DEVICE} for row in stack_rows()]
    with pytest.raises(InputError, match="its times mean nothing"):
        invoke("validate", "--rows", write_stack(tmp_path / STACK, rows))


def test_measuring_without_a_gpu_exits_3_with_one_line(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulator.cli", "validate", "--out", str(tmp_path / "out")],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env={"PATH": "", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_transfer_is_told_by_family(invoke, perfect: Path, measured_data: Path) -> None:
    """By the profile that was fitted to this trace: what it says of itself, family by family."""
    trace = measured_data / "traces" / "deepseek_v3_h800_train.json.gz"
    options = ("--profile", "h800-deepseek", "--trace", trace, "--json")
    found = json.loads(invoke("validate", "--rows", perfect, *options).stdout)
    whole, *families = found["transfer"]
    assert whole["family"] == "all"
    for side in ("measured_s", "simulated_s"):
        assert whole[side] == pytest.approx(sum(line[side] for line in families))
    assert abs(whole["error"]) < 0.01
    assert found["transfer_basis"] == "profile h800-deepseek"
