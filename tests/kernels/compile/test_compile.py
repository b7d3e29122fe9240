"""Every kernel compiles for sm_90 with its launch's own specialisation, as the author meant it."""

import json
import os
from collections.abc import Callable, Iterator

import pytest

from kernels import names
from tests.kernels.compile.compiler import Compiler, Facts
from tests.kernels.compile.tritons import TRITONS, require, version_of

SHARED_LIMIT_BYTES = 227 << 10  # of one program on sm_90
REGISTERS_PER_THREAD, REGISTERS_PER_SM = 255, 65_536
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

Compile = Callable[[str, str], Facts]


@pytest.fixture(scope="module")
def compile_(request: pytest.FixtureRequest) -> Iterator[Compile]:
    """Facts of an op compiled with a Triton. All that the tests will ask for is begun at once, each
    Triton in its own process."""
    compilers = {triton: Compiler(triton) for triton in TRITONS if version_of(triton)}
    for item in request.session.items:
        if item.module is request.module:
            asked = item.callspec.params
            if asked["triton"] in compilers:
                compilers[asked["triton"]].ask(asked["op"])

    def facts(op: str, triton: str) -> Facts:
        exact = require(triton)
        found = compilers[triton].ask(op).result()
        assert found, "launch compiled nothing"
        assert {fact["triton"] for fact in found} == {exact}
        return found

    yield facts
    for one in compilers.values():
        one.close()


@pytest.mark.parametrize("triton", TRITONS)
@pytest.mark.parametrize("op", names())
def test_compiles_for_hopper(op: str, triton: str, compile_: Compile) -> None:
    facts = compile_(op, triton)
    for fact in facts:
        assert fact["stack_bytes"] == 0, f"spills: {fact}"
        assert fact["shared_bytes"] <= SHARED_LIMIT_BYTES, f"shared memory: {fact}"
        assert fact["registers"] <= REGISTERS_PER_THREAD, f"registers: {fact}"
        assert fact["registers"] * fact["warps"] * 32 <= REGISTERS_PER_SM, f"cannot launch: {fact}"
        if fact["wgmma"] and json.loads(fact["config"] or "{}").get("specialize"):
            # A compiler that does not do what it is asked to, or does all twice, does not say so.
            assert fact["warps"] == SPECIALIZED_WARPS, f"not specialised: {fact}"
            assert fact["product_rows"] == [64], f"tile not halved: {fact}"
        if fact["kernel"] in WGMMA.get(op, set()):
            assert fact["wgmma"] or (op in MMA and fact["mma"]), f"no tensor cores: {fact}"
        else:
            assert not fact["wgmma"], f"not meant to: {fact}"
    assert {fact["kernel"] for fact in facts if fact["wgmma"]} == WGMMA.get(op, set())
    assert any(fact["tma"] for fact in facts) == (op in TMA)
    assert any(fact["mma"] for fact in facts) == (op in MMA)


@pytest.mark.parametrize(("op", "triton"), [("occupy", triton) for triton in TRITONS])
def test_occupy_takes_the_whole_register_file(op: str, triton: str, compile_: Compile) -> None:
    """Registers are given out in eights per thread: more than 56 of 1024 threads leave no room."""
    (fact,) = compile_(op, triton)
    assert fact["registers"] > 56
    assert fact["warps"] == 32
