"""Processes of this machine."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from hwmodels.errors import MachineError
from simulator.study.executors import Work
from simulator.study.rows import Done, Task

AHEAD = 2
"""Tasks that wait for each worker: enough for none to idle, few enough to stop soon."""


def run(work: Work, tasks: Sequence[Task], workers: int) -> Iterator[Done]:
    """Yield what comes of every task as it is done; a single worker is this process.

    Raises:
        MachineError: a worker was killed, for want of memory as a rule.
    """
    if workers == 1 or len(tasks) == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _leave_interrupts_to_the_parent)
    try:
        left, running = iter(tasks), set[Future[Done]]()
        while True:
            while len(running) < AHEAD * workers and (task := next(left, None)) is not None:
                running.add(pool.submit(work, task))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise MachineError(
            "study: a worker was killed, for want of memory as a rule; go on with --resume and "
            "fewer --workers"
        ) from None
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
