"""Where tasks are done changes no byte of a table: workers, Ray, and whatever order they end in."""

import gc
import importlib.util
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hwmodels.errors import InputError, MachineError
from simulator.study import executors
from simulator.study.executors import executor, executor_names, local
from simulator.study.rows import Done
from simulator.tell.study_table import StudyTable
from tests.unit.study.studies import SMALL
from tests.unit.study.test_store import parts, same_table, started, wait_for

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray (extra 'ray')"
)


def test_executors_are_found_by_name():
    assert executor_names() == ("local", "ray")
    with pytest.raises(InputError, match="did you mean 'local'"):
        executor("locals")


def test_two_workers_write_the_table_of_one(small_study, small_folder, tmp_path):
    small_study().run(tmp_path / "out", workers=2)
    assert same_table(tmp_path / "out", small_folder)


@pytest.mark.parametrize("seed", range(3))
def test_tasks_may_end_in_any_order(small_study, small_folder, tmp_path, monkeypatch, seed):
    def run(work, tasks, _workers):
        yield from map(work, random.Random(seed).sample(tasks, len(tasks)))

    shuffling = type("Shuffling", (), {"run": staticmethod(run)})
    monkeypatch.setattr("simulator.study.run.executor", lambda _name: shuffling)
    small_study().run(tmp_path / "out", workers=1 + seed)
    assert same_table(tmp_path / "out", small_folder)


def die(_task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_told_in_one_line():
    with pytest.raises(MachineError, match="a worker was killed") as error:
        list(local.run(die, [1, 2, 3], 2))
    assert error.value.exit_code == 3


def half(task):
    return Done(task, [], task / 2)


def test_no_worker_is_left_when_no_more_is_taken():
    every = local.run(half, list(range(20)), 2)
    assert next(every).seconds in {task / 2 for task in range(20)}
    every.close()
    assert not multiprocessing.active_children()


def pace(task):
    """Stands for work; tells how seldom the process that does it looks for garbage."""
    return Done(task, [{"pace": gc.get_threshold(), "frozen": gc.get_freeze_count()}], 0.0)


def test_workers_look_for_garbage_seldom_and_this_process_does_so_meanwhile():
    before = gc.get_threshold(), gc.get_freeze_count()
    of_workers = [done.rows[0] for done in local.run(pace, [1, 2, 3], 2)]
    assert {row["pace"] for row in of_workers} == {executors.SELDOM}
    assert min(row["frozen"] for row in of_workers) > 1000
    (own,) = local.run(pace, [1], 1)
    assert own.rows[0]["pace"] == executors.SELDOM
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


@needs_ray
def test_ray_writes_the_same_table_and_nothing_else_to_stdout(small_folder, tmp_path):
    """A real local Ray, in a process of its own; nothing but JSON goes to stdout."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    process = started(file, tmp_path / "out", "--executor", "ray", "--workers", 2, "--json")
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert json.loads(out)["rows"] == len(StudyTable.load(small_folder).frame)
    assert "Traceback" not in told
    assert same_table(tmp_path / "out", small_folder)


@needs_ray
def test_ctrl_c_ends_ray_too(small_study, small_folder, tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    folder = tmp_path / "out"
    process = started(file, folder, "--executor", "ray", "--workers", 1)
    wait_for(lambda: parts(folder), process)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("moesim: interrupted")  # Ray may tell of itself before
    assert "Traceback" not in told
    small_study().run(folder, workers=1, resume=True)
    assert same_table(folder, small_folder)


def test_without_ray_its_executor_says_what_it_lacks(tmp_path):
    """In a process to which ray is not there."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    hidden = "import sys; sys.modules['ray'] = None; from simulator.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "study", file, "--executor", "ray", "--out", tmp_path / "o"],
        cwd=Path(executors.__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "needs ray (extra 'ray')" in done.stderr
    assert done.stderr.count("\n") == 1
