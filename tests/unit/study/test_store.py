"""A study's folder: killed, interrupted, damaged or without room, nothing of it is lost."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from hwmodels.errors import InputError, MachineError, SpecError
from simulator.study import store
from simulator.tell.study_table import StudyTable
from tests.unit.study.studies import CAN_RUN, POINTS, SMALL

CHECKOUT = Path(__file__).resolve().parents[3]
PARTS = 8
"""Part files of the small study with one worker."""


HEARING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from simulator.cli import main; main()"
)


def started(file, folder, *options):
    """Start `moesim study` in a group of its own, to be killed with all it starts.

    It hears Ctrl-C even where those who run the tests do not, as jobs of a shell in the background.
    """
    command = [
        sys.executable, "-c", HEARING, "study", file, "--out", folder, "--no-figures",
        *options,
    ]  # fmt: skip
    return subprocess.Popen(
        list(map(str, command)), cwd=CHECKOUT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def document(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    return file


def parts(folder):
    return sorted((folder / "rows").glob("*.parquet"))


def wait_for(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.002)


def same_table(folder, other):
    return (folder / "table.parquet").read_bytes() == (other / "table.parquet").read_bytes()


def test_killed_at_any_moment_and_resumed_the_table_is_the_same(
    small_study, small_folder, document, tmp_path
):
    """SIGKILL to the whole group at 20 moments: before the folder is there, between any two parts,
    and in the middle of writing; with one worker and with two.
    """
    rng, left = random.Random(15), []
    for moment in range(20):
        folder = tmp_path / f"out {moment}"
        workers = 1 + moment % 2
        process = started(document, folder, "--workers", workers)
        reached = rng.randint(0, PARTS - 1)
        wait_for(lambda out=folder, k=reached: len(parts(out)) >= k, process)
        time.sleep(rng.random() * (2.0 if moment < 4 else 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        left.append(len(parts(folder)))
        table = small_study().run(folder, workers=1, resume=True)
        assert len(table.frame) == POINTS
        assert same_table(folder, small_folder)
        assert sorted(file.name for file in folder.iterdir()) == [
            "clock.jsonl", "study.json", "table.parquet",
        ]  # fmt: skip
    assert len(set(left)) > 3, "killed at moments that differ"


@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_two_processes_do_not_work_in_one_folder(small_folder, document, tmp_path, options):
    """The first is held up in the middle, with its workers; the second says so and goes."""
    folder = tmp_path / "out"
    first = started(document, folder, "--workers", 2)
    wait_for(lambda: parts(folder), first)
    os.killpg(first.pid, signal.SIGSTOP)
    try:
        there = {file: file.read_bytes() for file in parts(folder)}
        second = started(document, folder, *options)
        out, told = second.communicate(timeout=60)
        assert (second.returncode, out) == (2, "")
        why = "at work there" if options else "already; go on with --resume"
        assert why in told
        assert told.count("\n") == 1
        assert {file: file.read_bytes() for file in parts(folder)} == there
    finally:
        os.killpg(first.pid, signal.SIGCONT)
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert same_table(folder, small_folder)


def test_a_study_that_begins_is_alone_before_it_says_so(small_study, tmp_path):
    """Of two that find an empty folder one gets it."""
    folder = tmp_path / "out"
    (folder / "rows").mkdir(parents=True)
    with (folder / "clock.jsonl").open("a", encoding="utf-8") as clock:
        fcntl.flock(clock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another moesim study is at work there"):
            small_study().run(folder, workers=1)
        assert not (folder / "study.json").exists()
    assert len(small_study().run(folder, workers=1).frame) == POINTS


def test_a_disk_without_locks_is_told_in_one_line(small_study, tmp_path, monkeypatch):
    def flock(_file, _how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(MachineError, match="cannot be locked") as error:
        small_study().run(tmp_path / "out", workers=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_study_to_go_on_with(
    small_study, small_folder, document, tmp_path, workers
):
    folder = tmp_path / "out"
    process = started(document, folder, "--workers", workers)
    wait_for(lambda: len(parts(folder)) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to workers too
    out, told = process.communicate(timeout=60)  # no worker is left that holds its pipes
    assert (process.returncode, out) == (130, "")
    assert told.count("\n") == 1
    assert told.startswith("moesim: interrupted")
    known = StudyTable.load(folder).frame
    assert 0 < len(known) < POINTS
    small_study().run(folder, workers=1, resume=True)
    assert same_table(folder, small_folder)


def test_workers_end_when_who_started_them_is_killed(document, tmp_path):
    process = started(document, tmp_path / "out", "--workers", 2)
    wait_for(lambda: parts(tmp_path / "out"), process)
    os.kill(process.pid, signal.SIGKILL)  # alone: its workers are not
    process.communicate(timeout=60)  # ends when nobody holds its pipes any more


def test_a_folder_says_what_it_holds(small_folder):
    table = StudyTable.load(small_folder)
    assert (len(table.frame), len(table.feasible)) == (POINTS, CAN_RUN)
    assert table.document.name == "small"
    plain = pd.read_parquet(small_folder / "table.parquet")
    assert plain["point"].tolist() == list(range(POINTS))
    assert (small_folder / "clock.jsonl").read_text(encoding="utf-8").count("\n") == PARTS


def test_without_resume_or_of_another_study_a_folder_is_left_alone(small_study, small_folder):
    before = {file: file.read_bytes() for file in small_folder.iterdir()}
    with pytest.raises(InputError, match="already; go on with --resume"):
        small_study().run(small_folder)
    with pytest.raises(InputError, match="of another document, experiment or version"):
        small_study(usd_per_gpu_hour=3.0).run(small_folder, resume=True)
    small_study().run(small_folder, resume=True)  # all is there: nothing is touched
    assert {file: file.read_bytes() for file in small_folder.iterdir()} == before


class StopError(Exception):
    """Ends a study in the middle."""


def stopped(study, folder, after):
    """Run a study up to a number of its tasks."""
    calls = []

    def track(progress):
        calls.append(progress)
        if len(calls) > after:
            raise StopError

    with pytest.raises(StopError):
        study.run(folder, workers=1, track=track)


@pytest.mark.parametrize("damage", ["cut", "empty", "one byte", "no parquet"])
def test_a_damaged_part_is_named_and_no_other_is_lost(small_study, small_folder, tmp_path, damage):
    folder = tmp_path / "out"
    stopped(small_study(), folder, after=4)
    part = parts(folder)[1]
    content = bytearray(part.read_bytes())
    if damage == "one byte":
        content[200] ^= 1
    part.write_bytes(
        {"cut": content[:-100], "empty": b"", "one byte": content, "no parquet": b"x" * 999}[damage]
    )
    with pytest.raises(SpecError, match="is damaged; take it away and go on") as error:
        small_study().run(folder, workers=1, resume=True)
    assert part.name in str(error.value)
    assert len(str(error.value)) < 300
    part.unlink()
    small_study().run(folder, workers=1, resume=True)
    assert same_table(folder, small_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "small"}', "\0"])
def test_a_damaged_document_is_told_in_one_line(small_study, tmp_path, text):
    folder = tmp_path / "out"
    stopped(small_study(), folder, after=3)
    kept = parts(folder)
    (folder / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"study\.json") as error:
        small_study().run(folder, workers=1, resume=True)
    assert len(str(error.value)) < 300
    assert parts(folder) == kept


@pytest.mark.parametrize("file", ["study.json", "rows/part", "table.parquet"])
def test_a_full_disk_loses_nothing(small_study, small_folder, tmp_path, monkeypatch, file):
    """The disk is full while the document, the third part or the table is written."""
    folder, put, written = tmp_path / "out", store._put, []

    def full(path, content):
        written.append(path)
        at_part = file == "rows/part" and len(written) == 4
        if path.name == file or at_part:
            with path.with_name(f"{path.name}.tmp").open("wb") as handle:
                handle.write(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        put(path, content)

    monkeypatch.setattr(store, "_put", full)
    with pytest.raises(MachineError, match="no space left on device") as error:
        small_study().run(folder, workers=1)
    assert error.value.exit_code == 3
    kept = len(parts(folder))
    assert kept == {"study.json": 0, "rows/part": 2, "table.parquet": PARTS}[file]
    monkeypatch.undo()
    small_study().run(folder, workers=1, resume=True)
    assert same_table(folder, small_folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
def test_a_disk_that_is_really_full(small_study, small_folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs to be allowed to mount")
    try:
        with pytest.raises(MachineError, match="no space left on device"):
            small_study().run(disk / "out", workers=1)
        assert not list((disk / "out").rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        small_study().run(disk / "out", workers=1, resume=True)
        assert same_table(disk / "out", small_folder)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_what_is_in_the_folders_place_is_told(small_study, tmp_path):
    file = tmp_path / "out"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not a directory"):
        small_study().run(file)
    assert file.read_text(encoding="utf-8") == "mine"


def test_a_folder_that_cannot_be_made_is_the_machines_fault(small_study):
    with pytest.raises(MachineError) as error:
        small_study().run(Path("/proc/no such place"))
    assert error.value.exit_code == 3


def test_rows_of_someone_else_stay(small_study, tmp_path):
    mine = tmp_path / "out" / "rows" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    small_study().run(tmp_path / "out", workers=1)
    assert mine.read_text(encoding="utf-8") == "mine"
