"""Router, map, permute and un-permute against plain torch: ragged, idle experts, idle tokens."""

import pytest
import torch

from calibration.measure.numerics import poison
from kernels import moe_map, moe_permute, moe_unpermute, router
from tests.kernels.numerics import assert_close

ROUTES = [
    {"tokens": 9, "rows": 9, "top_k": 2, "experts": 3},
    {"tokens": 40, "rows": 100, "top_k": 6, "experts": 20},
    {"tokens": 25, "rows": 11, "top_k": 8, "experts": 4},  # idle tokens, short rows
    {"tokens": 6, "rows": 6, "top_k": 1, "experts": 16},  # most experts idle
]
ROUTERS = [
    {"tokens": 5, "experts": 256, "groups": 8, "groups_kept": 4, "top_k": 8},
    {"tokens": 13, "experts": 64, "groups": 4, "groups_kept": 2, "top_k": 6},
    {"tokens": 3, "experts": 8, "groups": 8, "groups_kept": 3, "top_k": 3},
    {"tokens": 4, "experts": 16, "groups": 1, "groups_kept": 1, "top_k": 1},
]


@pytest.mark.parametrize("config", router.CONFIGS[:2])
@pytest.mark.parametrize("shape", ROUTERS)
def test_router(shape: dict[str, int], config: router.Config) -> None:
    args = router.inputs(shape, "cpu", seed=shape["experts"])
    out = (
        torch.empty(shape["tokens"], shape["top_k"], dtype=torch.int32),
        torch.empty(shape["tokens"], shape["top_k"]),
    )
    poison(*out)
    router.launch(**args, out=out, config=config)
    want = router.reference(**args)
    assert torch.equal(out[0], want[0])
    assert_close(out[1], want[1], "fp32")
    groups = out[0] // (shape["experts"] // shape["groups"])
    assert max(len(set(row.tolist())) for row in groups) <= shape["groups_kept"]
    assert_close(out[1].sum(1), torch.full((shape["tokens"],), 2.5), "fp32")


def test_router_ties_go_to_the_lower_index() -> None:
    shape = {"groups": 2, "groups_kept": 1, "top_k": 3}
    chosen, _ = router.launch(torch.zeros(2, 16), torch.zeros(16), **shape)
    assert chosen.tolist() == [[0, 1, 2]] * 2


@pytest.mark.parametrize("route", ROUTES)
def test_map(route: dict[str, int]) -> None:
    args = moe_map.inputs(route, "cpu", seed=route["tokens"])
    want = moe_map.reference(**args)
    out = tuple(torch.empty_like(t) for t in want)
    poison(*out)
    moe_map.launch(**args, out=out)
    for got, right in zip(out, want, strict=True):
        assert torch.equal(got, right)
    assert int((out[0] >= 0).sum()) == route["rows"]


def test_map_over_many_blocks() -> None:
    route = {"tokens": 300, "rows": 2000, "top_k": 8, "experts": 256}
    args = moe_map.inputs(route, "cpu")
    for got, right in zip(moe_map.launch(**args), moe_map.reference(**args), strict=True):
        assert torch.equal(got, right)


@pytest.mark.parametrize("fp8", [0, 1])
@pytest.mark.parametrize("route", ROUTES)
def test_permute(route: dict[str, int], fp8: int) -> None:
    args = moe_permute.inputs(route | {"hidden": 208, "fp8": fp8}, "cpu", seed=1)
    experts = moe_map.draw_experts(route, seed=1)
    mapped = moe_map.reference(experts, route["experts"], align=8)
    args |= dict(zip(("rows", "starts", "counts"), mapped, strict=True)) | {"align": 8}
    want = moe_permute.reference(**args)
    out = moe_permute.empty_outputs(args["capacity"], 208, torch.device("cpu"), fp8=bool(fp8))
    poison(*out)
    moe_permute.launch(**args, out=out)
    for got, right in zip(out, want, strict=True):
        used = right.isfinite()
        assert torch.equal(got.double()[used], right[used])
        assert got.double()[~used].isnan().all(), "rows of no expert must be left alone"


@pytest.mark.parametrize("weighted", [0, 1])
@pytest.mark.parametrize("route", ROUTES)
def test_unpermute(route: dict[str, int], weighted: int) -> None:
    args = moe_unpermute.inputs(route | {"hidden": 137, "weighted": weighted}, "cpu", seed=2)
    held = torch.zeros(args["y"].shape[0], dtype=torch.bool)
    held[args["rows"][args["rows"] >= 0].long()] = True
    args["y"][~held] = float("nan")  # rows of no token must not be read into a sum
    out = torch.empty(route["tokens"], 137, dtype=torch.bfloat16)
    poison(out)
    assert_close(moe_unpermute.launch(**args, out=out), moe_unpermute.reference(**args), "bf16")


def test_permute_then_unpermute_counts_copies() -> None:
    route = ROUTES[0] | {"hidden": 64, "fp8": 0}
    args = moe_permute.inputs(route, "cpu")
    (y,) = moe_permute.launch(**args)
    copies = (args["rows"] >= 0).sum(1, keepdim=True)
    assert_close(moe_unpermute.launch(y, args["rows"]), args["x"].double() * copies, "bf16")


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="powers of two"):
        router.launch(torch.zeros(2, 12), torch.zeros(12), groups=4, groups_kept=1, top_k=1)
    with pytest.raises(ValueError, match="cannot take 5 of 16"):
        router.launch(torch.zeros(2, 16), torch.zeros(16), groups=4, groups_kept=1, top_k=5)
    with pytest.raises(ValueError, match=r"experts: .*int64"):
        moe_map.launch(torch.zeros(2, 2, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match=r"rows: .*at most"):
        moe_map.draw_experts({"tokens": 2, "rows": 9, "top_k": 4, "experts": 4}, 0)
    args = moe_permute.inputs(ROUTES[0] | {"hidden": 200, "fp8": 1}, "cpu")
    with pytest.raises(ValueError, match="16 bytes"):
        moe_permute.launch(**args)
