"""How many blocks of the softmax rectangle an attention kernel computes, exactly.

Queries are cut into units of `rows` rows, keys into blocks of `keys`. A row is a token of one head,
or, where `heads` query heads that share keys are packed (token by token), of any of them. Unit i
of `length` tokens that follow `prefix` cached ones sees

    ceil(min(prefix + ceil((i + 1) rows / heads), prefix + length) / keys)

blocks under a causal mask, less the floor((first key) / keys) of them that a sliding window has
left behind. Sums of floors of a straight line are found by Euclid's steps (Graham, Knuth,
Patashnik, Concrete Mathematics, §3.5), so that nothing is counted one by one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.arrays import Floats, Ints


class Blocks(NamedTuple):
    """Of one sequence of one head, or of one group of packed heads.

    Attributes:
        units: work units.
        total: blocks of all units.
        longest: blocks of the longest unit; with a window, the most that a full unit can touch.
    """

    units: Floats
    total: Floats
    longest: Floats


def attention_blocks(
    length: npt.ArrayLike,
    causal: npt.ArrayLike,
    *,
    prefix: npt.ArrayLike = 0,
    window: npt.ArrayLike = np.inf,
    heads: npt.ArrayLike = 1,
    rows: int = 128,
    keys: int = 128,
) -> Blocks:
    """Return the units and blocks of attention; all but `rows` and `keys` broadcast.

    Args:
        length: queries of a sequence, which are its newest tokens; rounded up.
        causal: whether a query sees only keys up to its own position.
        prefix: tokens before them whose keys are seen too.
        window: keys a query sees at most, its own included; without a causal mask, all.
        heads: query heads packed into the rows of a unit.
        rows, keys: of a block.
    """
    tokens, before, packed = (_whole(size) for size in (length, prefix, heads))
    reach = np.asarray(window, np.float64)
    seen = np.minimum(reach, before + tokens).astype(np.int64)
    tokens, before, packed, seen = np.broadcast_arrays(tokens, before, packed, seen)
    units, last = -(-tokens * packed // rows), -(-(before + tokens) // keys)
    ends = last + _sum_of_floors(
        units - 1, keys * packed, rows, before * packed + rows + keys * packed - 1
    )
    # Units whose first query still sees the first key skip nothing.
    first = (before - seen + 1) * packed
    idle = np.clip(-(first // rows), 0, units)
    starts = _sum_of_floors(units - idle, keys * packed, rows, first + idle * rows)
    reached = seen + (rows + packed - 2) // packed
    spread = (reached + keys - 2) // keys + 1
    is_causal = np.asarray(causal, bool)
    total = np.where(is_causal, ends - starts, units * last)
    longest = np.where(is_causal, np.minimum(last, spread), last)
    return Blocks(*(np.asarray(count, np.float64) for count in (units, total, longest)))


def _whole(size: npt.ArrayLike) -> Ints:
    return np.ceil(np.asarray(size, np.float64)).astype(np.int64)


def _sum_of_floors(count: Ints, modulus: Ints, slope: npt.ArrayLike, offset: Ints) -> Ints:
    """Return `sum of floor((slope i + offset) / modulus) for i in range(count)`."""
    n, m, a, b = (
        np.array(part, np.int64) for part in np.broadcast_arrays(count, modulus, slope, offset)
    )
    total = np.zeros_like(n)
    while np.any(n > 0):
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        # What is left is below a triangle: count its points along the other axis.
        top = a * n + b
        n, b = top // m, top % m
        m, a = np.maximum(a, 1), m
    return total
