"""A process that compiles one op after another, beside those of other Tritons."""

import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.kernels.compile.tritons import environment

CHECKOUT = Path(__file__).parents[3]
LIMIT_S = 150  # for all shapes and configurations of one op; a tile that spills badly takes minutes

Facts = list[dict[str, Any]]


class Compiler:
    """Compiles with one Triton what it was asked for, in a process that a time limit can end."""

    def __init__(self, triton: str) -> None:
        self.triton = triton
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._asked: dict[str, Future[Facts]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)

    def ask(self, op: str) -> Future[Facts]:
        """Return what will hold facts about each kernel of `op`, or why there are none."""
        if op not in self._asked:
            self._asked[op] = self._thread.submit(self._compile, op)
        return self._asked[op]

    def close(self) -> None:
        """End the process, also in the middle of a compilation."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown(wait=True)
        self._stop()

    def _compile(self, op: str) -> Facts:
        if self._process is None:
            self._start()
        self._process.stdin.write(op + "\n")
        self._process.stdin.flush()
        try:
            facts = json.loads(self._answers.get(timeout=LIMIT_S))
        except queue.Empty:
            self._stop()
            raise TimeoutError(f"{op}: not compiled within {LIMIT_S} s") from None
        assert isinstance(facts, list), facts  # a text says why there are none
        return facts

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kernels.compile.aot"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=CHECKOUT, env=environment(self.triton),
        )  # fmt: skip
        self._answers = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(self._process, self._answers))
        self._listener.start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put(json.dumps(f"the compiling process ended: {process.wait()}"))

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._listener.join()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None
