"""Keep a day going when the process that measures ends or hangs.

No kernel of a first day has ever run. One that reads where it must not leaves a device context in
which nothing works any more; one that waits for ever holds its process. Either costs its own row
and a new process, not the day: the row is named a suspect in the record, and the next process
passes it over.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STALL_S = 45.0
"""Without a sign of life for so long, a process hangs; no row takes ten seconds."""

RESTARTS_MAX = 8

Command = Callable[[bool, float], list[str]]
"""The command of a process: whether it resumes, and the seconds it has."""


def supervise(
    command: Command,
    record: Path,
    budget_s: float,
    *,
    resume: bool,
    stall_s: float = STALL_S,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Run a day in processes of its own until one ends by itself or the time is up.

    Returns:
        The exit code of the last.
    """
    began_s, code = clock(), 0
    for restarts in range(RESTARTS_MAX + 1):
        left_s = budget_s - (clock() - began_s)
        code = _watch(command(resume or restarts > 0, left_s), record, stall_s)
        suspect = _suspect(record)
        if code in (0, 2) or suspect is None or budget_s - (clock() - began_s) < stall_s:
            return code
        sys.stderr.write(f"ended in {' '.join(map(str, suspect))}: that is passed over now\n")
    return code


def _watch(command: list[str], record: Path, stall_s: float) -> int:
    """Run a process to its end, or kill it when its record has not been touched for long."""
    with subprocess.Popen(command) as process:
        alive_s = time.time()
        while True:
            try:
                return process.wait(timeout=min(1.0, stall_s / 4))
            except subprocess.TimeoutExpired:
                alive_s = max(alive_s, record.stat().st_mtime if record.exists() else 0.0)
                if time.time() - alive_s > stall_s:
                    process.kill()


def _suspect(record: Path) -> list[Any] | None:
    """Add what was done last to the suspects of the record, and return it; None if nothing was."""
    if not record.exists():
        return None
    known = json.loads(record.read_text(encoding="utf-8"))
    doing: list[Any] | None = known.get("doing")
    if doing is None or doing in known["suspects"]:
        return None
    known["suspects"].append(doing)
    whole = record.with_name(f"{record.name}.new")
    whole.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    whole.replace(record)
    return doing
