"""Workers of a Ray cluster: the one that RAY_ADDRESS names, or one on this machine."""

import os
from collections.abc import Generator, Sequence
from typing import Any

from hwmodels.errors import MachineError
from simulator.study.executors import Work, seldom_collect
from simulator.study.rows import Done, Task

AHEAD = 2


def run(work: Work, tasks: Sequence[Task], workers: int) -> Generator[Done, None, None]:
    """Yield what comes of every task as it is done.

    Args:
        workers: of a cluster on this machine; an existing one has its own.

    Raises:
        MachineError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MachineError(f"--executor ray: needs ray (extra 'ray'): {error}") from None
    address = os.environ.get("RAY_ADDRESS")
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(
                address=address,
                num_cpus=None if address else workers,
                include_dashboard=False if not address else None,
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MachineError(f"--executor ray: {error}") from None
    remote, shared = ray.remote(_work), ray.put(work)
    try:
        cores = int(ray.cluster_resources().get("CPU", workers))  # type: ignore[no-untyped-call]
        at_once = AHEAD * max(1, cores)
        left, running = iter(tasks), list[Any]()
        while True:
            while len(running) < at_once and (task := next(left, None)) is not None:
                running.append(remote.remote(shared, task))
            if not running:
                return
            ready, running = ray.wait(running)
            yield from (Done(*done) for done in ray.get(ready))
    finally:
        if ours:
            ray.shutdown()


def _work(work: Work, task: Task) -> Done:
    seldom_collect()
    return work(task)
