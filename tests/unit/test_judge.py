"""A day on a GPU judged: known rates give known verdicts, and what the command tells of them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.gpu_day.files import FAILED, WRONG
from calibration.judge.folder import read_day
from calibration.judge.judgement import judge
from calibration.judge.rates import ceilings, rates
from calibration.judge.sharing import beside, curves
from calibration.judge.targets import TARGETS, verdicts
from kernels._choices import read_choices
from tests.unit.days import (
    COPY_BYTES_PER_S,
    DEVICE,
    all_right,
    checked,
    copies,
    on_target,
    timed,
    write_day,
)

CHECKOUT = Path(__file__).resolve().parents[2]
NORM = {"m": 32768, "k": 7168, "residual": 1}
SMALL_NORM = {"m": 4096, "k": 7168, "residual": 1}


@pytest.fixture
def day(tmp_path):
    """Write a day and read it again; checks are all right unless others are given."""

    def make(rows, checks=None, **device):
        return read_day(write_day(tmp_path / "day", rows, checks or all_right(), **device))

    return make


def verdict_of(day, kernel):
    return next(each for each in verdicts(day) if each.kernel == kernel)


# Targets


@pytest.mark.parametrize(("factor", "met"), [(1.001, True), (0.999, False)])
def test_a_target_is_met_by_what_reaches_it_and_by_nothing_less(day, factor, met) -> None:
    found = verdicts(day(on_target(factor)))
    assert [each.met for each in found] == [met] * len(TARGETS)
    for each, target in zip(found, TARGETS, strict=True):
        assert each.rate == pytest.approx(factor * target.least)
        assert (each.measured, each.shapes) == (len(target.shapes),) * 2
        assert not each.why


def test_the_slowest_of_its_shapes_judges_a_kernel(day) -> None:
    rows = on_target(1.5)
    slow = next(n for n, row in enumerate(rows) if row.kernel == "fp8_gemm")
    rows[slow] = replace(rows[slow], time_s=3e-3)
    found = verdict_of(day(rows), "fp8_gemm")
    assert (found.met, found.shape) == (False, rows[slow].shape)
    assert found.rate == pytest.approx(500)


def test_small_shapes_do_not_count(day) -> None:
    rows = [*on_target(1.01), timed("rmsnorm", SMALL_NORM, 1.0, bytes=1e6)]
    assert verdict_of(day(rows), "rmsnorm").met is True


def test_a_shape_that_was_not_measured_leaves_it_open_unless_another_missed(day, tmp_path) -> None:
    rows = on_target(1.1)
    gone = next(row for row in rows if row.kernel == "mla_prefill")
    found = verdict_of(day([row for row in rows if row is not gone]), "mla_prefill")
    assert (found.met, found.measured, found.why) == (None, 2, "1 of 3 shapes not measured")
    slow = [row for row in on_target(0.9) if row.shape != gone.shape]
    missed = read_day(write_day(tmp_path / "slow", slow, all_right()))
    assert verdict_of(missed, "mla_prefill").met is False


def test_a_shape_that_failed_says_why(day) -> None:
    rows = on_target(1.1)
    at = next(n for n, row in enumerate(rows) if row.kernel == "mla_prefill")
    rows[at] = timed("mla_prefill", json.loads(rows[at].shape), None)
    found = verdict_of(day(rows), "mla_prefill")
    assert found.met is None
    assert found.why == "1 of 3 shapes failed: RuntimeError: out of shared memory"


def test_without_a_copy_nothing_is_a_share_of_it(day) -> None:
    found = verdict_of(
        day([row for row in on_target(1.1) if row.kernel != "probe_copy"]), "rmsnorm"
    )
    assert (found.rate, found.met, found.why) == (None, None, "no copy measured")


def test_without_another_provider_nothing_is_compared(day) -> None:
    found = verdicts(day([row for row in on_target(1.1) if row.provider == "moesim"]))
    beside_libraries = next(each for each in found if each.unit == "% of the best provider")
    assert (beside_libraries.met, beside_libraries.why) == (None, "no other provider measured")


def test_numbers_that_nobody_checked_are_not_met(day) -> None:
    checks = [check for check in all_right() if check["kernel"] != "rmsnorm"]
    found = verdict_of(day(on_target(1.1), checks), "rmsnorm")
    assert (found.met, found.why) == (None, "its numbers were not checked")


@given(data=st.data())
def test_a_faster_row_never_turns_met_into_missed(tmp_path_factory, data) -> None:
    """Whatever of a kernel's own rows get faster, its rates and verdicts do not get worse."""
    factor = st.floats(0.5, 2.0)
    rows = [
        replace(row, time_s=row.time_s / (1 if is_given(row) else data.draw(factor)))
        for row in on_target()
    ]
    faster = [
        replace(row, time_s=row.time_s * (1 if is_given(row) else data.draw(st.floats(0.5, 1))))
        for row in rows
    ]
    folder = tmp_path_factory.mktemp("days")
    before, after = (
        verdicts(read_day(write_day(folder / name, each, all_right())))
        for name, each in (("before", rows), ("after", faster))
    )
    for was, now in zip(before, after, strict=True):
        assert now.rate >= was.rate * (1 - 1e-12)
        assert now.met or not was.met


def is_given(row) -> bool:
    """Whether a row is what ours is judged by."""
    return row.kernel == "probe_copy" or row.provider != "moesim"


def test_a_day_measures_every_shape_of_every_target() -> None:
    pytest.importorskip("triton", reason="needs PyTorch and Triton")
    from calibration.gpu_day.parts import parts
    from calibration.gpu_day.sizes import RealSizes
    from calibration.measure.measurement import Point

    timing = [part for name, part in parts().items() if name != "numerics"]
    measured = {point.key for part in timing for point in part.points(RealSizes())}
    for target in TARGETS:
        for shape in target.shapes:
            assert Point(target.kernel, shape).key in measured, (target.name, shape)


# What is left out


def test_a_wrong_kernel_is_left_out_and_named(day) -> None:
    checks = [*all_right(), checked("rmsnorm", WRONG, output="y", error="0.5", bound="0.004")]
    found = day(on_target(2.0), checks)
    assert [(each.kernel, each.rows) for each in found.wrong] == [("rmsnorm", 1)]
    verdict = verdict_of(found, "rmsnorm")
    assert (verdict.rate, verdict.met) == (None, None)
    assert verdict.why == "numbers wrong: output y: 0.5 > 0.004"
    assert not [rate for rate in rates(found) if rate.kernel == "rmsnorm"]


def test_a_wrong_configuration_leaves_the_kernel_in(day) -> None:
    swept = timed("rmsnorm", NORM, 1e-6, bytes=1e9, config='{"warps":4}')
    checks = [*all_right(), checked("rmsnorm", FAILED, config=swept.config, note="Error: x")]
    found = day([*on_target(1.1), swept], checks)
    assert [(each.config, each.rows) for each in found.wrong] == [(swept.config, 1)]
    assert verdict_of(found, "rmsnorm").met is True
    assert swept.config not in {row.config for row in found.rows}


def test_a_wrong_probe_is_no_ceiling(day) -> None:
    found = day(on_target(1.1), [*all_right(), checked("probe_copy", WRONG)])
    assert ceilings(found).copy_bytes_per_s is None
    assert verdict_of(found, "rmsnorm").why == "no copy measured"


def test_rows_of_another_device_are_left_out_and_named(day) -> None:
    fast = timed("rmsnorm", SMALL_NORM, 1e-9, bytes=1e9, device="NVIDIA B200")
    found = day([*on_target(0.9), fast], [*all_right(), checked("quantize", WRONG, device="B200")])
    assert [(other.device, other.rows) for other in found.others] == [("NVIDIA B200", 1)]
    assert {row.device for row in found.rows} == {DEVICE}
    assert not found.wrong


# Rates, curves, neighbours


def test_rates_are_work_over_time_and_shares_are_of_the_probes(day) -> None:
    probe = {"format": "fp8", "programs": 132, "steps": 1024}
    found = day(
        [
            *copies(),
            timed("probe_tensor_rate", probe, 1e-3, flops=1.5e12),
            timed("probe_tensor_rate", probe, 1e-3, flops=1.2e12, sustained=1, sm_clock_hz=1.4e9),
            timed("probe_launch", {"launches": 1}, 5e-6, bytes=8.0),
            timed("probe_launch", {"launches": 100}, 2e-4, bytes=800.0),
            timed("fp8_gemm", {"m": 1, "n": 1, "k": 1}, 1e-3, flops=7.5e11, bytes=1e9),
            timed("fp8_gemm", {"m": 1, "n": 1, "k": 1}, 8e-4, provider="torch"),
            timed("fp8_gemm", {"m": 1, "n": 1, "k": 1}, 5e-4, provider="torch", sustained=1),
        ]
    )
    top = ceilings(found)
    assert top.copy_bytes_per_s == pytest.approx(COPY_BYTES_PER_S)
    assert top.fp8_flops_per_s == pytest.approx(1.5e15)
    assert top.fp8_sustained_flops_per_s == pytest.approx(1.2e15)
    assert top.bf16_flops_per_s is None
    assert top.launch_s == pytest.approx(2e-6)
    assert top.sustained_clock_hz == 1.4e9
    (rate,) = rates(found)
    assert rate.flops_per_s == pytest.approx(7.5e14)
    assert (rate.of_peak, rate.of_copy) == pytest.approx((0.5, 0.5))
    assert (rate.library, rate.of_library) == ("torch", pytest.approx(0.8))


def test_the_fewest_sms_that_reach_nine_tenths_saturate(day) -> None:
    shape, rate = {"bytes": 1 << 30}, COPY_BYTES_PER_S / 24  # 24 SMs copy at the full rate
    limited = [
        timed("probe_copy", shape, 2**31 / min(rate * sms, COPY_BYTES_PER_S), bytes=2.0**31,
              held_sms=132 - sms)
        for sms in (48, 8, 22, 20)
    ]  # fmt: skip
    (curve,) = curves(day([*copies(), *limited]))
    assert [point.sms for point in curve.points] == [8, 20, 22, 48]
    assert curve.points[0].of_all == pytest.approx(1 / 3)
    assert curve.saturating_sms == 22


def test_a_neighbour_slows_by_the_time_beside_one_that_only_holds_its_sms(day) -> None:
    held = {"held_sms": 20, "bytes": 1e9}
    rows = [
        timed("rmsnorm", NORM, 1.0e-3, bytes=1e9),
        timed("rmsnorm", NORM, 1.2e-3, **held),
        timed("rmsnorm", NORM, 1.8e-3, mode="beside", **held),
        timed("quantize", {"m": 8, "k": 128}, 1.8e-3, mode="beside", **held),
    ]
    (found,) = beside(day([*copies(), *rows]))
    assert (found.kernel, found.held_sms, found.slowdown) == ("rmsnorm", 20, pytest.approx(1.5))


def test_a_winner_of_the_sweep_is_no_chance_and_not_wrong(tmp_path) -> None:
    """10 % faster wins, 1 % is within the quantiles; a wrong configuration cannot win."""
    swept = {'{"warps":4}': 0.99e-3, '{"warps":8}': 0.9e-3, '{"warps":16}': 0.1e-3}
    rows = [
        timed("rmsnorm", NORM, 1e-3, bytes=1e9),
        *(timed("rmsnorm", NORM, s, bytes=1e9, config=config) for config, s in swept.items()),
    ]
    checks = [checked("rmsnorm", WRONG, config='{"warps":16}')]
    (winner,) = judge(write_day(tmp_path / "day", [*copies(), *rows], checks)).winners
    assert (winner.kernel, winner.config, winner.stays) == ("rmsnorm", '{"warps":8}', False)
    assert (winner.present_s, winner.time_s) == pytest.approx((1e-3, 0.9e-3))
    (stays,) = judge(write_day(tmp_path / "day", [*copies(), *rows[:2]])).winners
    assert stays.stays


# The command


def moesim(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simulator.cli", "calibrate", "judge", *map(str, arguments)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_prints_one_document_without_torch(tmp_path) -> None:
    folder = write_day(tmp_path / "day", on_target(1.1), all_right())
    code = f"""
import sys
sys.modules["torch"] = sys.modules["triton"] = None
sys.argv = ["moesim", "calibrate", "judge", {str(folder)!r}, "--json"]
from simulator.cli import main
main()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    document = json.loads(run.stdout)
    assert [each["met"] for each in document["targets"]] == [True] * len(TARGETS)
    assert document["device"]["name"] == DEVICE
    assert document["chip"] == "h100"
    assert {"rates", "winners", "curves", "beside", "cost_fits", "wrong"} <= set(document)


def test_the_command_prints_tables(tmp_path) -> None:
    rows = [*on_target(0.9), timed("rope", {"tokens": 8, "heads": 2, "dim": 64, "row": 192}, None)]
    run = moesim(write_day(tmp_path / "day", rows, all_right(), capability=100))
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.count("missed") == len(TARGETS)
    assert "out of shared memory" in run.stdout
    assert "the targets are for an H100-class GPU" in run.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--chip", "h900"], "unknown preset; did you mean 'h800'?"),
        (["--chip", "h20"], "--chip h20: has 78 SMs, and NVIDIA H100 80GB HBM3"),
    ],
)
def test_a_chip_that_is_not_the_devices_is_refused(tmp_path, options, told) -> None:
    run = moesim(write_day(tmp_path / "day", on_target()), *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert told in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_what_is_no_folder_is_refused_with_code_two(tmp_path, name) -> None:
    (tmp_path / "file").write_text("")
    run = moesim(tmp_path / name)
    assert (run.returncode, run.stdout) == (2, "")
    assert "expected the folder of a day on a GPU" in run.stderr
    assert run.stderr.count("\n") == 1


def test_winners_go_into_the_table_that_is_named(tmp_path) -> None:
    """And a file that is no table of choices stays as it is."""
    rows = [
        timed("rmsnorm", NORM, 1e-3, bytes=1e9),
        timed("rmsnorm", NORM, 0.9e-3, bytes=1e9, config='{"warps":8}'),
    ]
    folder, table = write_day(tmp_path / "day", [*copies(), *rows]), tmp_path / "choices.csv"
    run = moesim(folder, "--choices", table)
    assert (run.returncode, run.stderr) == (0, f"wrote 1 winners to {table}\n")
    (choice,) = read_choices(table).values()
    assert (choice.kernel, choice.device) == ("rmsnorm", DEVICE)
    assert choice.time_s == pytest.approx(0.9e-3)
    table.write_text("something else\n")
    run = moesim(folder, "--choices", table)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert table.read_text() == "something else\n"
