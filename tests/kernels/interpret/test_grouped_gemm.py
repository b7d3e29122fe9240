"""Grouped FP8 product against float64: ragged counts, experts without rows, both layouts."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.measure.numerics import poison
from kernels import grouped_gemm
from kernels.grouped_gemm import Config
from tests.kernels.numerics import assert_close

COUNTS = [(130, 0, 1, 200), (0, 0, 128), (5,), (0, 64, 0, 70, 3, 0, 128, 9)]


def run(
    counts: tuple[int, ...],
    masked: int,
    n: int,
    k: int,
    config: Config | None = None,
    align: int | None = None,
) -> None:
    shape = {"counts": counts, "n": n, "k": k, "masked": masked}
    args = grouped_gemm.inputs(shape, "cpu", seed=sum(counts))
    args["align"] = align or args["align"]
    out = torch.empty(args["a"].shape[0], n, dtype=torch.bfloat16)
    poison(out)
    grouped_gemm.launch(**args, out=out, config=config)
    want = grouped_gemm.reference(**args)
    used = want.isfinite().all(1)
    align = args["align"]
    assert int(used.sum()) == sum(-(-count // align) * align for count in counts)
    assert_close(out[used], want[used], "fp8")
    assert out[~used].isnan().all(), "rows of no group must be left alone"


@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("counts", COUNTS)
def test_ragged(counts: tuple[int, ...], masked: int) -> None:
    run(counts, masked, n=136, k=144)


@pytest.mark.parametrize("config", [*grouped_gemm.CONFIGS, Config(block_n=128, halves=2)])
def test_every_config(config: Config) -> None:
    run((150, 0, 33), 0, n=200, k=272, config=config)


@pytest.mark.parametrize("align", [1, 64, 128])
@pytest.mark.parametrize("config", grouped_gemm.CONFIGS)
def test_tiles_cut_by_their_group_store_its_rows_alone(config: Config, align: int) -> None:
    """Tiles of 64 rows are whole from an alignment of 64 on, those of 128 rows from 128."""
    run((70, 0, 130), 1, n=136, k=128, config=config, align=align)


@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("counts", COUNTS)
def test_a_table_of_tiles_changes_nothing(counts: tuple[int, ...], masked: int) -> None:
    shape = {"counts": counts, "n": 136, "k": 144, "masked": masked}
    args = grouped_gemm.inputs(shape, "cpu", seed=1)
    for config in grouped_gemm.CONFIGS[:3]:
        outs = [torch.full((args["a"].shape[0], 136), torch.nan).bfloat16() for _ in range(2)]
        for out, tile_table in zip(outs, (False, True), strict=True):
            grouped_gemm.launch(
                **args, out=out, config=dataclasses.replace(config, tile_table=tile_table)
            )
        assert torch.equal(outs[0].view(torch.int16), outs[1].view(torch.int16))


def tiles_by_hand(
    starts: list[int], counts: list[int], align: int, block_m: int
) -> list[tuple[int, int, int]]:
    """Return group, first row and rows left of each tile, from the definition of a layout."""
    return [
        (group, start + done, -(-count // align) * align - done)
        for group, (start, count) in enumerate(zip(starts, counts, strict=True))
        for done in range(0, -(-count // align) * align, block_m)
    ]


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=9),
    align=st.sampled_from([1, 64, 128]),
    block_m=st.sampled_from([64, 128]),
    masked=st.booleans(),
)
def test_the_table_lists_the_tiles_of_every_group(
    counts: list[int], align: int, block_m: int, masked: bool
) -> None:
    check_table(counts, align, block_m, masked)


def test_a_table_of_more_tiles_than_one_program_writes() -> None:
    check_table([9000, 0, 10007, 0], 1, 64, masked=False)


def check_table(counts: list[int], align: int, block_m: int, masked: bool) -> None:
    starts, rows = grouped_gemm.layout(tuple(counts), masked=masked)
    most = -(-rows // block_m) + len(counts)
    on_device = (torch.tensor(each, dtype=torch.int32) for each in (starts, counts))
    table = grouped_gemm.tile_table(*on_device, most, align, block_m)
    want = tiles_by_hand(starts, counts, align, block_m)
    assert int(table[0]) == len(want) <= most
    found = table[1:].view(3, most)[:, : len(want)]
    assert [tuple(tile) for tile in found.T.tolist()] == want


def test_specialising_needs_a_table() -> None:
    fits = {"warps": 4, "flatten": False, "specialize": True}
    Config(**fits, tile_table=True)
    with pytest.raises(ValueError, match="specialize: tile_table"):
        Config(**fits)
    with pytest.raises(ValueError, match="specialize: block_m=64"):
        Config(**fits, tile_table=True, block_m=64)


def test_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="split_k: 2 given"):
        Config(flatten=False, split_k=2)


def test_groups_need_no_alignment() -> None:
    args = grouped_gemm.inputs({"counts": (256,), "n": 128, "k": 128, "masked": 0}, "cpu")
    args["align"] = 1
    args["b"], args["sb"] = args["b"].repeat(3, 1, 1), args["sb"].repeat(3, 1, 1)
    args["starts"] = torch.tensor([0, 10, 200], dtype=torch.int32)
    args["counts"] = torch.tensor([10, 190, 50], dtype=torch.int32)
    want = grouped_gemm.reference(**args)[:250]
    assert_close(grouped_gemm.launch(**args)[:250], want, "fp8")


def test_no_tokens_at_all() -> None:
    args = grouped_gemm.inputs({"counts": (0, 0), "n": 128, "k": 128, "masked": 1}, "cpu")
    out = torch.empty(256, 128, dtype=torch.bfloat16)
    poison(out)
    assert grouped_gemm.launch(**args, out=out).isnan().all()


def test_bad_input_is_refused() -> None:
    args = grouped_gemm.inputs({"counts": (4, 4), "n": 128, "k": 128, "masked": 0}, "cpu")
    with pytest.raises(ValueError, match=r"counts: .*int64"):
        grouped_gemm.launch(**args | {"counts": args["counts"].long()})
    with pytest.raises(ValueError, match="starts: shape"):
        grouped_gemm.launch(**args | {"starts": args["starts"][:1]})
