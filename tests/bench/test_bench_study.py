"""How fast a whole study is, its folder included: 10,000 machines on two workers, and how soon
workers are there. An event is one point.
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from simulator.study.document import StudySpec
from simulator.study.executors import local
from simulator.study.rows import Done, Payload, Task
from simulator.study.run import Study

pytestmark = pytest.mark.bench

WORKERS = 2
POINTS = 10_000
GOAL_S, GOAL_BYTES = 30.0, 2e9
START_GOAL_S = 2.0


def hardware_study(**changes):
    """DeepSeek-V3's step, balanced, on chips with other memories, links and clocks."""
    ranges = {
        "hbm": ("cluster.node.chip.hbm_bytes_per_s", "2 TB/s", "6 TB/s", 25),
        "nvlink": ("cluster.node.chip.nvlink_bytes_per_s", "100 GB/s", "450 GB/s", 20),
        "clock": ("cluster.node.chip.peak_clock_hz", "1.2 GHz", "2.0 GHz", 20),
    }
    axes = [
        {"name": name, "set": {path: {"from": low, "to": high, "count": count}}}
        for name, (path, low, high, count) in ranges.items()
    ]
    balanced = {"base": "deepseek-v3-pretrain", "ranks": {"expert_load": {"sigma": 0.0}}}
    values = {"title": "Hardware", "experiment": balanced, "axes": axes} | changes
    return Study.of(StudySpec.model_validate(values))


def children():
    """Return the processes that this one started, and those that these did."""
    found, seen = [os.getpid()], set()
    while found:
        pid = found.pop()
        seen.add(pid)
        for listed in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in listed.read_text(encoding="ascii").split()]
    return seen


def resident_bytes():
    """Return what this process and those it started hold."""
    total = 0
    for pid in children():
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        except OSError:  # it ended meanwhile
            continue
        total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


def test_10_000_machines(table, tmp_path):
    study, peaks, over = hardware_study(), [], threading.Event()

    def watch():
        while not over.wait(0.2):
            peaks.append(resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()

    def run():
        return study.run(tmp_path / "study", workers=WORKERS)

    try:
        ran = table.timed(
            f"a study of {POINTS:,} machines, {WORKERS} workers",
            run,
            lambda found: (len(found.frame), 1, len(found.frame)),
            goal_s=GOAL_S,
        )
    finally:
        over.set()
        watcher.join()
    table.rows[-1]["peak_bytes"] = max(peaks)
    sys.stdout.write(f"\nall processes: {max(peaks) / GOAL_BYTES:.0%} of {GOAL_BYTES / 1e9:g} GB\n")
    assert len(ran.frame) == POINTS == len(ran.feasible)
    assert ran.frame["step_time_s"].nunique() > POINTS / 2


def ready(payload, task):
    """Stands for the work of a worker: it has read the study, and says when."""
    from simulator.study.rows import _evaluator

    _evaluator(payload)
    time.sleep(0.2)  # so that the other one takes a task too
    return Done(task, [], time.time())


def test_workers_start(table):
    """From nothing to a worker that has read the study and could play."""
    study = hardware_study()
    work = partial(ready, Payload.of(study.spec, study.base))
    tasks = [Task("play", (point,)) for point in range(WORKERS)]
    began = time.time()

    def start():
        return list(local.run(work, tasks, WORKERS))

    found = table.timed(
        f"{WORKERS} workers start, with 0.2 s to tell", start, lambda done: (0, WORKERS, len(done)),
        goal_s=START_GOAL_S,
    )  # fmt: skip
    assert len(found) == WORKERS
    assert all(done.seconds > began for done in found)
    assert not multiprocessing.active_children()


def test_the_command_that_shows_one_row(table):
    """`moesim study --point`, a process of its own."""

    def command():
        return subprocess.run(
            [sys.executable, "-m", "simulator.cli", "study", "nvlink", "--point", "3", "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip

    done = table.timed("moesim study --point 3", command, lambda _: (0, 1, 1))
    assert '"point": 3' in done.stdout
