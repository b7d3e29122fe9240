"""A whole day on a borrowed GPU, dry: in the interpreter, on tiny shapes, with a clock made up."""

import gzip
import json
import multiprocessing
import random
from collections import Counter
from pathlib import Path

import pytest

from calibration.gpu_day.__main__ import main
from calibration.gpu_day.files import (
    BLOCKING,
    EAGER,
    GRAPH,
    NUMERICS,
    NUMERICS_COLUMNS,
    NUMERICS_ROWS,
    PROFILE,
    RIGHT,
    STACK,
    STACK_COLUMNS,
    STACK_ROWS,
    TOTAL,
)
from calibration.gpu_day.parts import parts, stack
from calibration.gpu_day.sizes import TinySizes
from calibration.judge.folder import read_day
from calibration.judge.judgement import judge
from calibration.measure.append_csv import whole_rows
from calibration.measure.measurement import DRY_DEVICE, key_of, read_rows
from calibration.read.torch_trace import read_trace
from calibration.stack.names import BACKWARD, FORWARD, STACKS
from hwmodels.errors import CalibrationError
from kernels import names
from simulator.cli.validation import validation

KILLS = 10
PROBES = {"probe_copy", "probe_launch", "probe_tensor_rate"}
LONGEST_S = 4.0  # until a kill; a whole day takes some thirty seconds


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.BaseContext:
    """Processes that a server forks, with PyTorch and Triton imported and nothing run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["calibration.gpu_day.run", "calibration.gpu_day.dry"])
    return context


def start(processes, out: Path, *options: str):
    command = ["--dry-run", "--out", str(out), *options]
    process = processes.Process(target=main, args=(command,))
    process.start()
    return process


@pytest.fixture(scope="module")
def whole_day(processes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("day") / "whole"
    process = start(processes, out)
    process.join()
    assert process.exitcode == 0
    return out


def keys(out: Path) -> Counter[tuple[str, ...]]:
    return Counter(key_of(row) for row in read_rows(out / "rows.csv"))


def checked(out: Path) -> Counter[tuple[str, ...]]:
    rows = whole_rows(out / NUMERICS, NUMERICS_COLUMNS, NUMERICS_ROWS)
    return Counter((row["kernel"], row["shape"], row["config"], row["output"]) for row in rows)


def played(out: Path) -> Counter[tuple[str, ...]]:
    return Counter((row["layer"], row["mode"], row["op"]) for row in stack_rows(out))


def stack_rows(out: Path) -> list[dict[str, str]]:
    return whole_rows(out / STACK, STACK_COLUMNS, STACK_ROWS)


def profiled(out: Path) -> list[str]:
    document = json.loads(gzip.decompress((out / PROFILE).read_bytes()))
    return [event["name"] for event in document["traceEvents"]]


def test_every_part_is_done_and_every_number_right(whole_day: Path) -> None:
    record = json.loads((whole_day / "day.json").read_text())
    assert list(record["parts"]) == list(parts())
    assert {part["state"] for part in record["parts"].values()} == {"done"}, record["parts"]
    for row in read_rows(whole_day / "rows.csv"):
        assert not row["error"], row
        assert row["device"] == "interpreter, nothing measured"
    checks = whole_rows(whole_day / NUMERICS, NUMERICS_COLUMNS, NUMERICS_ROWS)
    wrong = [row for row in checks if row["verdict"] != RIGHT]
    assert not wrong, wrong
    files = list(whole_day.iterdir())
    assert len(files) < 8
    assert sum(file.stat().st_size for file in files) < 16 << 20


def called(whole_day: Path, folder: Path) -> None:
    """Copy the files of a day, in the name of a GPU."""
    for file in (each for each in whole_day.iterdir() if each.name != PROFILE):
        text = file.read_text().replace(DRY_DEVICE, "NVIDIA H200")
        (folder / file.name).write_text(text.replace('"capability": null', '"capability": 90'))


def test_what_a_day_writes_can_be_judged_but_not_a_dry_one(whole_day: Path, tmp_path: Path) -> None:
    """The same files in the name of a GPU are read to the last row: writer and reader agree."""
    with pytest.raises(CalibrationError, match="a dry run"):
        judge(whole_day)
    called(whole_day, tmp_path)
    day, found = read_day(tmp_path), judge(tmp_path)
    assert len(day.rows) == len(read_rows(whole_day / "rows.csv"))
    assert day.checked == set(names())
    assert (day.wrong, day.failed, day.others) == ((), (), ())
    assert found.chip == "h200"
    assert {rate.kernel for rate in found.rates} == {fit.kernel for fit in found.cost_fits} - PROBES
    assert all(each.met is None for each in found.targets), "tiny shapes are those of no target"


def test_its_layer_can_be_validated_but_not_a_dry_one(whole_day: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="a dry run"):
        validation(whole_day, None, None, None, None)
    called(whole_day, tmp_path)
    found = validation(tmp_path, None, None, None, None)
    steps = stack.planned(TinySizes().training_layer(), TinySizes().decoding_layer())
    assert [(op.layer, op.op) for op in found.ops] == [
        (layer, step.op) for layer, some in steps.items() for step in some
    ]
    assert (found.chip, found.failed, found.notes) == ("h200", [], ())
    for line in found.totals:
        is_graph = line.mode == GRAPH
        assert line.measured_s == (None if is_graph else 1e-3)
        assert ("no CUDA device" if is_graph else "no time of the host to launch") in line.why


def test_every_op_of_every_layer_has_a_row_and_no_graph_is_made_up(whole_day: Path) -> None:
    steps = stack.planned(TinySizes().training_layer(), TinySizes().decoding_layer())
    ops = [(layer, step.op) for layer, all_ in steps.items() for step in all_]
    rows = [(layer, mode, op) for layer, op in ops for mode in (EAGER, GRAPH)]
    rows += [(layer, mode, TOTAL) for layer in (*steps, *STACKS) for mode in stack.TOTALS]
    assert played(whole_day) == Counter(rows)
    for row in stack_rows(whole_day):
        assert row["device"] == "interpreter, nothing measured"
        assert row["without"] == ""
        if row["mode"] in (EAGER, BLOCKING):
            assert (row["error"], row["p50_s"]) == ("", "0.001"), row
        else:
            assert "there is no CUDA device" in row["error"]
            assert row["p50_s"] == ""


def test_the_profile_has_a_range_for_each_op_and_no_kernel(whole_day: Path) -> None:
    steps = stack.planned(TinySizes().training_layer(), TinySizes().decoding_layer())
    assert profiled(whole_day) == [s.op for layer in (FORWARD, BACKWARD) for s in steps[layer]]
    with pytest.raises(CalibrationError, match="no GPU kernel in this trace"):
        read_trace(whole_day / PROFILE)


def test_a_day_killed_ten_times_ends_like_one_that_was_not(
    processes, whole_day: Path, tmp_path: Path
) -> None:
    """At most the row in the making is lost: none is there twice, and none is missing."""
    out, moments = tmp_path / "killed", random.Random(0)
    seen: Counter[tuple[str, ...]] = Counter()
    acts: Counter[tuple[str, ...]] = Counter()
    for _ in range(KILLS):
        process = start(processes, out, "--resume")
        process.join(moments.uniform(0.3, LONGEST_S))
        process.kill()
        process.join()
        if (out / "rows.csv").exists():
            now = keys(out)
            assert not seen - now, "rows that were safe are gone"
            seen = now
        if (out / STACK).exists():
            now = played(out)
            assert not acts - now, "rows that were safe are gone"
            acts = now
    process = start(processes, out, "--resume")
    process.join()
    assert process.exitcode == 0
    assert keys(out) == keys(whole_day)
    assert set(keys(out).values()) == {1}
    for kept in (checked, played):
        assert kept(out) == kept(whole_day)
        assert set(kept(out).values()) == {1}
    assert profiled(out) == profiled(whole_day)


def test_a_short_day_has_the_first_parts(processes, tmp_path: Path) -> None:
    """Twenty seconds of the made-up clock: what comes first is whole, what comes last is not."""
    out = tmp_path / "short"
    process = start(processes, out, "--budget", "20")
    process.join()
    assert process.exitcode == 0
    states = [
        part["state"] for part in json.loads((out / "day.json").read_text())["parts"].values()
    ]
    first = states.index("cut off")
    assert first >= 1
    assert states[:first] == ["done"] * first


def test_only_the_parts_that_are_asked_for(processes, tmp_path: Path) -> None:
    out = tmp_path / "only"
    process = start(processes, out, "--only", "device")
    process.join()
    assert list(json.loads((out / "day.json").read_text())["parts"]) == ["device"]
    assert {row["kernel"].split("_")[0] for row in read_rows(out / "rows.csv")} == {"probe"}
