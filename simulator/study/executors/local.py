"""Processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from hwmodels.errors import MachineError
from simulator.study.executors import Work, seldom_collect, seldom_collecting
from simulator.study.rows import Done, Task

AHEAD = 2
"""Tasks that wait for each worker: enough for none to idle, few enough to stop soon."""


def run(work: Work, tasks: Sequence[Task], workers: int) -> Generator[Done, None, None]:
    """Yield what comes of every task as it is done; a single worker is this process.

    Raises:
        MachineError: a worker was killed, for want of memory as a rule.
    """
    if workers == 1 or len(tasks) == 1:
        with seldom_collecting():
            yield from map(work, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _begin)
    try:
        left, running = iter(tasks), set[Future[Done]]()
        while True:
            while len(running) < AHEAD * workers and (task := next(left, None)) is not None:
                with _interrupts_held():
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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait while a worker may be started: who starts so never hears of it, not even
    while it imports, and leaves it to this process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Make a new process a worker."""
    seldom_collect()
    _end_with_the_parent()


def _end_with_the_parent() -> None:
    """Let a worker not outlive a parent that was killed: nobody would take its rows."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
