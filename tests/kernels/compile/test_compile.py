"""Every kernel compiles for sm_90 with its launch's own specialisation, as the author meant it."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernels import names

LIMIT_S = 150  # for all shapes and configurations of one op; a tile that spills badly takes minutes
SHARED_LIMIT_BYTES = 232_448  # of one program on sm_90
REGISTERS_PER_SM = 65_536
SPECIALIZED_WARPS = 12  # a warpgroup that loads, and two that multiply half of a tile each

# Kernels that must use Hopper's warpgroup matrix instruction; all others must not need it.
WGMMA = {
    "bf16_gemm": {"_bf16_gemm_kernel"},
    "fp8_gemm": {"_fp8_gemm_kernel"},
    "fp8_wgrad": {"_fp8_wgrad_kernel"},
    "grouped_gemm": {"_grouped_gemm_kernel"},
    "mla_decode": {"_mla_decode_kernel"},
    "mla_prefill": {"_mla_prefill_kernel"},
    "mla_prefill_backward": {"_dkv_kernel", "_dq_kernel"},
    "probe_tensor_rate": {"_tensor_rate_kernel"},
}
# Those whose operands come by TMA. The rate probe loads once, so it does not matter there.
TMA = set(WGMMA) - {"probe_tensor_rate"}
# Few heads fill no warpgroup instruction: the older one is meant there.
MMA = {"mla_decode"}

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter cannot compile"
)


class Compiler:
    """A process that compiles one op after another, and that a time limit can end."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str] = queue.Queue()

    def compile(self, op: str) -> list[dict[str, Any]]:
        """Return facts about each kernel of `op`; a failure or a late answer fails the test."""
        if self.process is None:
            self.start()
        self.process.stdin.write(op + "\n")
        self.process.stdin.flush()
        try:
            facts = json.loads(self.answers.get(timeout=LIMIT_S))
        except queue.Empty:
            self.stop()
            pytest.fail(f"{op}: not compiled within {LIMIT_S} s")
        assert isinstance(facts, list), facts
        return facts

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kernels.compile.aot"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )  # fmt: skip
        self.answers = queue.Queue()
        self.listener = threading.Thread(target=self._listen, args=(self.process, self.answers))
        self.listener.start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.Queue[str]) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put(json.dumps(f"the compiling process ended: {process.wait()}"))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.listener.join()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    one = Compiler()
    yield one
    one.stop()


@pytest.mark.parametrize("op", names())
def test_compiles_for_hopper(op: str, compiler: Compiler) -> None:
    facts = compiler.compile(op)
    assert facts, "launch compiled nothing"
    for fact in facts:
        assert fact["stack_bytes"] == 0, f"spills: {fact}"
        assert fact["shared_bytes"] <= SHARED_LIMIT_BYTES, f"shared memory: {fact}"
        assert fact["registers"] * fact["warps"] * 32 <= REGISTERS_PER_SM, f"cannot launch: {fact}"
        if "specialize=True" in fact["config"] and fact["wgmma"]:
            # A compiler that does not do what it is asked to, or does all twice, does not say so.
            assert fact["warps"] == SPECIALIZED_WARPS, f"not specialised: {fact}"
            assert fact["product_rows"] == [64], f"tile not halved: {fact}"
    on_tensor_cores = {fact["kernel"] for fact in facts if fact["wgmma"]}
    assert on_tensor_cores == WGMMA.get(op, set())
    assert any(fact["tma"] for fact in facts) == (op in TMA)
    assert any(fact["mma"] for fact in facts) == (op in MMA)


def test_occupy_takes_the_whole_register_file(compiler: Compiler) -> None:
    """Registers are given out in eights per thread: more than 56 of 1024 threads leave no room."""
    (fact,) = compiler.compile("occupy")
    assert fact["registers"] > 56
    assert fact["warps"] == 32
