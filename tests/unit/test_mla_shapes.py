"""Multi-head latent attention of each library as keywords of a cost function."""

import numpy as np
import pytest

from calibration.read.mla_shapes import prefill_shape
from hwmodels.costs.work import attention_work

HEADS, ONE = np.array([16.0]), np.ones(1)
LATENT = 512 + 64
QUERY, KEY, VALUE, ROTARY = 192, 192, 128, 64
"""Elements of one expanded head."""


def shape(library: str, cache: str) -> dict[str, object]:
    return prefill_shape(library, HEADS, ONE, 100 * ONE, 0 * ONE, cache)


@pytest.mark.parametrize(("cache", "element"), [("bfloat16", 2), ("fp8", 1)])
def test_an_absorbed_prompt_appends_its_latents(cache: str, element: int) -> None:
    found = shape("sglang", cache)
    assert found["kv_token_bytes"] == LATENT * element
    assert found["passed_bytes"] == LATENT * (2 + element)
    assert "tensor_family" not in found


def test_an_expanded_prompt_also_rotates_queries_and_keys_of_every_head() -> None:
    found = shape("trtllm", "bfloat16")
    rotated = ROTARY * (2 + 2 + 2)  # queries read and written, keys written
    np.testing.assert_array_equal(found["passed_bytes"], LATENT * (2 + 2) + 16 * rotated)
    assert "tensor_family" not in found


def test_with_an_fp8_cache_trtllm_quantises_and_computes_in_fp8() -> None:
    found = shape("trtllm", "fp8")
    rotated, quantised = ROTARY * (2 + 2 + 2), (QUERY + KEY + VALUE) * (2 + 1)
    passed = LATENT * (2 + 1) + 16 * (rotated + quantised)
    np.testing.assert_array_equal(found["passed_bytes"], passed)
    work = attention_work(**found)
    assert work.tensor_family == "fp8"
    core = QUERY + KEY + VALUE + 2 * VALUE  # in FP8, and the output in BF16
    np.testing.assert_allclose(work.moved_bytes, 100 * (16 * core + passed))


def test_a_kernel_timed_alone_passes_nothing_before() -> None:
    assert "passed_bytes" not in shape("flash-attention-3", "bfloat16")
