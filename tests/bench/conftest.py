"""What the benches share: a table of how fast things are, printed last and written as JSON.

MOESIM_BENCH_JSON names the file; the table of each bench is kept in it under the bench's name.
"""

import contextlib
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Table:
    """Rows of what was timed, how many tasks, replicas, events and seconds that is, events a second
    and peak memory. An event is the end of a task, or of the fixed part of one that moves bytes,
    unless a bench says what else. Where a bench knows how long it may take, the last column is the
    share of that which it took.
    """

    rows: list = field(default_factory=list)

    def timed(self, what, play, count, repeats=1, goal_s=None):
        """Add the fastest of some plays and return what the last one gave.

        Args:
            count: of what a play gave, its tasks, replicas and events.
            goal_s: seconds that a play should take at most; told beside it, never asserted.
        """
        forget_peak()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            played = play()
            seconds.append(time.perf_counter() - started)
        peak = peak_bytes()
        tasks, replicas, events = count(played)
        self.rows.append(
            {
                "engine": what,
                "tasks": tasks,
                "replicas": replicas,
                "events": events,
                "seconds": min(seconds),
                "events_per_s": events / min(seconds),
                "peak_bytes": peak,
                "goal_s": goal_s,
            }
        )
        return played

    def lines(self):
        """Yield the table for people."""
        yield (
            f"{'what':<44}{'tasks':>11}{'replicas':>9}{'events':>13}{'seconds':>9}"
            f"{'events/s':>13}{'peak MB':>9}{'of goal':>9}"
        )
        for row in self.rows:
            yield (
                f"{row['engine']:<44}{row['tasks']:>11,}{row['replicas']:>9,}{row['events']:>13,}"
                f"{row['seconds']:>9.4f}{self._rate(row):>13}"
                f"{row['peak_bytes'] / 1e6:>9,.0f}{self._of_goal(row):>9}"
            )

    @staticmethod
    def _rate(row):
        rate = row["events_per_s"]
        return f"{rate:,.0f}" if rate > 100 else f"{rate:.3g}"

    @staticmethod
    def _of_goal(row):
        return "" if row["goal_s"] is None else f"{row['seconds'] / row['goal_s']:.0%}"


def forget_peak():
    """Let the peak begin anew, where Linux allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes():
    """Most memory this process held since its peak was forgotten."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture(scope="module")
def table(request):
    """The table of one bench."""
    filled = Table()
    yield filled
    sys.stdout.write("\n" + "\n".join(filled.lines()) + "\n")
    if "MOESIM_BENCH_JSON" in os.environ:
        file = Path(os.environ["MOESIM_BENCH_JSON"])
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        known[request.path.stem.removeprefix("test_bench_")] = filled.rows
        file.write_text(json.dumps(known, indent=1), encoding="utf-8")
