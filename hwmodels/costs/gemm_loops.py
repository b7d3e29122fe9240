"""The search for the fastest tile of many products: a plain loop that Numba compiles.

It says which candidate is the fastest and leaves the price to `hwmodels.costs.gemm`, so that a
product costs the same to the last bit however its tile was found. Nothing here imports Numba until
there is much to search. Machine code is kept on disk, as that of `simulator.engines.loops`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np

from hwmodels.arrays import Floats, Ints

Search = Callable[..., None]
STEP_BYTES = 128.0
"""Bytes of one row of A or B that one step along k consumes."""


class Tile(NamedTuple):
    """A tile of C on one machine; in columns: (tiles,), and (machines, tiles) of what has cycles.

    Attributes:
        step_cycles, promotion_cycles: of one step along k, and of block scales after it.
        outside_cycles: of the tile outside its steps.
    """

    rows: Any
    cols: Any
    above_m: Any
    upto_m: Any
    step_cycles: Any
    promotion_cycles: Any
    outside_cycles: Any


class Machine(NamedTuple):
    """What a chip and a library do besides, as numbers; in columns: (machines,).

    Attributes:
        ragged_cycles: of one step, for a row that a tile has beyond the product.
        l2_bytes_per_s, sm_bytes_per_s: of one SM, from L2 and from memory.
        l2_bytes: of an operand that is read from memory once.
    """

    ragged_cycles: Any
    clock_hz: Any
    wave_quantisation: Any
    split_fixup_s: Any
    l2_bytes_per_s: Any
    hbm_bytes_per_s: Any
    sm_bytes_per_s: Any
    l2_bytes: Any


class ElementBytes(NamedTuple):
    """Bytes of an element in a tile, of A and of B in memory, and of the result."""

    tile: float
    a: float
    b: float
    result: float


class Product(NamedTuple):
    """A product as numbers; in columns: (machines, products)."""

    rows: Any
    cols: Any
    depth: Any
    groups: Any
    sms: Any


def choose(
    tiles: Tile,
    splits: Floats,
    machines: Machine,
    products: Product,
    bytes_of: ElementBytes,
    exponent: float,
    chosen: Ints,
) -> None:
    """Write to `chosen` (machines, products) which tile and split is the fastest, as
    tile * len(splits) + split.
    """
    for machine in range(chosen.shape[0]):
        rates = Machine(
            machines.ragged_cycles[machine],
            machines.clock_hz[machine],
            machines.wave_quantisation[machine],
            machines.split_fixup_s[machine],
            machines.l2_bytes_per_s[machine],
            machines.hbm_bytes_per_s[machine],
            machines.sm_bytes_per_s[machine],
            machines.l2_bytes[machine],
        )
        best = 0
        for number in range(chosen.shape[1]):
            product = Product(
                products.rows[machine, number],
                products.cols[machine, number],
                products.depth[machine, number],
                products.groups[machine, number],
                products.sms[machine, number],
            )
            # What was the fastest for the product before is nearly so for this one.
            tile, split = divmod(best, splits.size)
            first = tile_of(tiles, machine, tile)
            least_s = seconds(first, splits[split], rates, product, bytes_of, exponent, np.inf)
            least_s *= 1 + 1e-12
            for number_of_tile in range(tiles.rows.size):
                some = tile_of(tiles, machine, number_of_tile)
                if fewest_seconds(some, rates, product, bytes_of) >= least_s:
                    continue
                for split in range(splits.size):
                    time_s = seconds(
                        some, splits[split], rates, product, bytes_of, exponent, least_s
                    )
                    if time_s < least_s:
                        least_s, best = time_s, number_of_tile * splits.size + split
            chosen[machine, number] = best


def tile_of(tiles: Tile, machine: int, number: int) -> Tile:
    """Return one of the tiles on one of the machines."""
    return Tile(
        tiles.rows[number],
        tiles.cols[number],
        tiles.above_m[number],
        tiles.upto_m[number],
        tiles.step_cycles[machine, number],
        tiles.promotion_cycles[machine, number],
        tiles.outside_cycles[machine, number],
    )


def fewest_seconds(tile: Tile, machine: Machine, product: Product, bytes_of: ElementBytes) -> float:
    """Return what no split gets below: the steps of all tiles, spread evenly over the SMs."""
    m = product.rows / product.groups
    if not tile.above_m < m <= tile.upto_m:
        return np.inf
    count = product.groups * np.ceil(m / tile.rows) * np.ceil(product.cols / tile.cols)
    steps = product.depth * bytes_of.tile / STEP_BYTES
    cycles = count * steps * (tile.step_cycles + tile.promotion_cycles)
    return float(cycles / (product.sms * machine.clock_hz))


def seconds(
    tile: Tile,
    split: float,
    machine: Machine,
    product: Product,
    bytes_of: ElementBytes,
    exponent: float,
    enough_s: float,
) -> float:
    """Return the time with one tile and split, or infinity once it is seen to be `enough_s`."""
    m = product.rows / product.groups
    if not tile.above_m < m <= tile.upto_m:
        return np.inf
    blocks = np.ceil(m / tile.rows)
    count = product.groups * blocks * np.ceil(product.cols / tile.cols)
    lam, waves = machine.wave_quantisation, count * split / product.sms
    waves = lam * np.ceil(waves) + (1 - lam) * max(1.0, waves)
    steps = np.ceil(product.depth * bytes_of.tile / (split * STEP_BYTES))
    plain = tile.step_cycles
    cycles = steps * (plain + tile.promotion_cycles) + tile.outside_cycles
    if waves * cycles / machine.clock_hz >= enough_s:
        return np.inf
    beyond = machine.ragged_cycles * (blocks * tile.rows - m)
    if beyond > 0:
        cycles += steps * (np.sqrt(np.sqrt(plain**4 + beyond**4)) - plain) / blocks
    compute_s = waves * cycles / machine.clock_hz
    operand_a = product.rows * product.depth * bytes_of.a
    operand_b = product.groups * product.cols * product.depth * bytes_of.b
    moved, busy = operand_a + operand_b, min(count * split, product.sms)
    if min(operand_a, operand_b) / product.groups > machine.l2_bytes:
        sides = 2 * np.sqrt(busy * tile.rows * tile.cols)
        both = (bytes_of.a + bytes_of.b) / 2
        moved = max(moved, count / busy * sides * product.depth * both)
    moved += product.rows * product.cols * bytes_of.result
    memory_s = moved / min(machine.hbm_bytes_per_s, busy * machine.sm_bytes_per_s)
    added_s = 0.0
    if split > 1:
        reduced = 8 * split * product.rows * product.cols
        added_s = machine.split_fixup_s + reduced / (machine.l2_bytes_per_s * product.sms)
    longer_s = max(compute_s, memory_s)
    if longer_s + added_s >= enough_s:
        return np.inf
    share = min(compute_s, memory_s) / longer_s
    return float(longer_s * (1 + share**exponent) ** (1 / exponent) + added_s)


HELPERS = (tile_of, fewest_seconds, seconds)
"""What the search calls; compiled into it."""

PATIENCE = 4_000_000
"""Candidates of products that NumPy looks at in about the time that loading the compiler takes."""

_looked_at = 0


def search_for(candidates: int) -> Search | None:
    """Return the compiled search where it pays for so many candidates of products, else None."""
    global _looked_at  # noqa: PLW0603 - how long a process has waited is a fact of it
    _looked_at += candidates
    if compiled.cache_info().currsize or _looked_at > PATIENCE:
        return compiled()
    return None


@cache
def compiled() -> Search:
    """Return `choose` compiled; the first call compiles it or reads it from disk."""
    import numba  # noqa: PLC0415 - half a second that a start of the command line does not pay

    for helper in HELPERS:
        numba.extending.register_jitable(error_model="numpy")(helper)

    def jit(keep: bool) -> Any:
        return numba.njit(cache=keep, nogil=True, error_model="numpy")(choose)

    try:
        return cast("Search", jit(keep=True))
    except RuntimeError:  # no folder can be written: every process compiles for itself
        return cast("Search", jit(keep=False))
