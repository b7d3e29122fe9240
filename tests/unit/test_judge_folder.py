"""A folder of a day: damaged anywhere it is read as far as it goes, or refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.gpu_day.files import NUMERICS, RECORD, ROWS
from calibration.judge.folder import read_day
from calibration.judge.judgement import judge
from calibration.judge.targets import TARGETS
from calibration.measure.measurement import COLUMNS, DRY_DEVICE
from hwmodels.errors import CalibrationError
from tests.unit.days import (
    DEVICE,
    all_right,
    on_target,
    timed,
    write_day,
)

NORM = {"m": 32768, "k": 7168, "residual": 1}


def break_columns(folder: Path) -> None:
    text = (folder / ROWS).read_text()
    (folder / ROWS).write_text(text.replace("kernel,", "kernels,", 1))


def break_cell(column: str, value: str):
    def change(folder: Path) -> None:
        row = dict.fromkeys(COLUMNS, "0") | {
            "kernel": "rmsnorm", "shape": '"{""m"":1}"', "mode": "isolated", "device": DEVICE,
            "time_s": "1e-3", "error": "",
        }  # fmt: skip
        cells = row | {column: value}
        with (folder / ROWS).open("a") as file:
            file.write(",".join(cells.values()) + "\n")

    return change


def change_record(**changed):
    def change(folder: Path) -> None:
        record = json.loads((folder / RECORD).read_text())
        (folder / RECORD).write_text(json.dumps(record | changed))

    return change


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / RECORD).unlink(), "has no day.json"),
        (lambda folder: (folder / RECORD).write_text('{"device": '), "is no record of a day"),
        (lambda folder: (folder / RECORD).write_bytes(b"\xff\xfe"), "is no record of a day"),
        (lambda folder: (folder / RECORD).write_text("[" * 100_000), "is no record of a day"),
        (lambda folder: (folder / RECORD).write_text("[]"), "must have a device and parts"),
        (change_record(device={"name": DEVICE}), "device.sms must be a whole number, got None"),
        (change_record(parts={"ops": 3}), "part ops is 3"),
        (change_record(schema=2), "schema 2 of a day; this version reads 1"),
        (break_columns, "are not those of measured rows"),
        (lambda folder: (folder / ROWS).write_bytes(b"\xff\xff\n"), "got no text"),
        (lambda folder: (folder / ROWS).unlink(), "nothing to judge"),
        (lambda folder: (folder / NUMERICS).write_text("a,b\n"), "are not those of checked"),
        (break_cell("time_s", "-1"), "time_s must be a number of 0 or more, got '-1'"),
        (break_cell("flops", "many"), "flops must be a number of 0 or more, got 'many'"),
        (break_cell("sms", "1.5"), "sms must be a whole number, got '1.5'"),
        (break_cell("mode", "alone"), "mode 'alone', allowed: isolated, limited, beside"),
        (break_cell("time_s", ""), "must have either a time or an error"),
        (break_cell("shape", '"{""m"":1e999}"'), "and words, got '{\"m\":1e999}'"),
        (break_cell("shape", "m=1"), "whole numbers, lists of them, and words, got 'm=1'"),
    ],
)
def test_a_damaged_day_is_refused_in_one_line(tmp_path, harm, told) -> None:
    folder = write_day(tmp_path / "day", on_target(), all_right())
    read_day(folder)
    harm(folder)
    with pytest.raises(CalibrationError) as error:
        read_day(folder)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_in_place_of_rows_is_refused(tmp_path) -> None:
    folder = write_day(tmp_path / "day", on_target(), all_right())
    (folder / ROWS).unlink()
    (folder / ROWS).mkdir()
    with pytest.raises(CalibrationError, match="expected a CSV file, got a folder"):
        read_day(folder)


def test_a_day_without_a_time_has_nothing_to_judge(tmp_path) -> None:
    folder = write_day(tmp_path / "day", [timed("rmsnorm", NORM, None)])
    with pytest.raises(CalibrationError, match="nothing to judge"):
        read_day(folder)


def test_a_dry_day_is_refused(tmp_path) -> None:
    rows = [replace(row, device=DRY_DEVICE) for row in on_target(2.0)]
    folder = write_day(tmp_path / "day", rows, name=DRY_DEVICE, capability=None)
    with pytest.raises(CalibrationError, match=r"a dry run .* mean nothing"):
        read_day(folder)


@given(cut=st.integers(0, 400))
def test_rows_cut_off_anywhere_are_read_up_to_the_last_whole_one(tmp_path_factory, cut) -> None:
    folder = write_day(tmp_path_factory.mktemp("days") / "day", on_target(), all_right())
    whole = (folder / ROWS).read_bytes()
    left = whole[: len(whole) - cut]
    (folder / ROWS).write_bytes(left)
    assert len(read_day(folder).rows) == left.count(b"\n") - 1


@given(
    name=st.sampled_from([RECORD, ROWS, NUMERICS]),
    at=st.floats(0, 1),
    junk=st.sampled_from([b"\x00", b"\xff", b'"', b",", b"\n", b"{", b"-", b"nan", b"1e999"]),
    gone=st.integers(0, 40),
)
def test_whatever_is_damaged_is_read_or_refused_in_one_line(
    tmp_path_factory, name, at, junk, gone
) -> None:
    launch = timed("probe_launch", {"launches": 100}, 1e-4, bytes=800.0)
    rows = [launch, *on_target()]
    folder = write_day(tmp_path_factory.mktemp("days") / "day", rows, all_right())
    whole = (folder / name).read_bytes()
    start = int(at * len(whole))
    (folder / name).write_bytes(whole[:start] + junk + whole[start + gone :])
    try:
        found = judge(folder)
    except CalibrationError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
    else:
        assert len(found.targets) == len(TARGETS)
