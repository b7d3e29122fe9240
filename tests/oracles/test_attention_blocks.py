"""Blocks of the softmax rectangle against counting them one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.costs.attention_blocks import attention_blocks

CASES = st.tuples(
    st.integers(1, 700),  # length
    st.one_of(st.just(0), st.integers(0, 600)),  # prefix
    st.one_of(st.just(10**9), st.integers(1, 900)),  # window
    st.sampled_from([1, 2, 3, 5, 8, 12, 64, 128]),  # packed heads
    st.sampled_from([16, 64, 128]),  # rows
    st.sampled_from([1, 16, 64, 128]),  # keys
)


def counted(
    length: int, prefix: int, window: int, heads: int, rows: int, keys: int
) -> tuple[int, int, int]:
    """Units, blocks of all of them, blocks of the longest."""
    units = -(-length * heads // rows)
    blocks = []
    for unit in range(units):
        first = unit * rows // heads
        last = min(-(-(unit + 1) * rows // heads), length)
        oldest = max(0, prefix + first - window + 1)
        blocks.append(-(-(prefix + last) // keys) - oldest // keys)
    return units, sum(blocks), max(blocks)


@given(CASES)
def test_blocks_under_a_mask_are_those_that_are_counted(
    case: tuple[int, int, int, int, int, int],
) -> None:
    length, prefix, window, heads, rows, keys = case
    found = attention_blocks(
        length, True, prefix=prefix, window=window, heads=heads, rows=rows, keys=keys
    )
    units, total, longest = counted(*case)
    assert (found.units, found.total) == (units, total)
    assert found.longest == longest if window == 10**9 else found.longest >= longest


def test_without_a_mask_every_unit_sees_every_key() -> None:
    found = attention_blocks([1, 128, 129], False, prefix=128)
    np.testing.assert_array_equal(found.total, [2, 2, 6])


def test_blocks_of_long_prompts_stay_exact() -> None:
    """A million tokens of 128 packed heads: 2,097,152 units of half a token."""
    tokens = 2**20
    found = attention_blocks(tokens, True, heads=128, rows=64, keys=64)
    assert found.total == 2 * 64 * sum(range(1, tokens // 64 + 1))
