"""FP8 weight gradient against float64: accumulates, ragged experts, experts without tokens."""

import pytest
import torch

from kernels import fp8_wgrad
from kernels.fp8_gemm import Config
from tests.kernels.numerics import assert_close


def run(counts: tuple[int, ...], m: int, n: int, config: Config | None = None) -> None:
    args = fp8_wgrad.inputs({"counts": counts, "m": m, "n": n}, "cpu", seed=m + n)
    want = fp8_wgrad.reference(**args)
    before = args["out"].clone()
    assert_close(fp8_wgrad.launch(**args, config=config), want, "fp32")
    empty = [g for g, count in enumerate(counts) if count == 0]
    assert torch.equal(args["out"][empty], before[empty])


@pytest.mark.parametrize(
    ("counts", "m", "n"),
    [((128,), 128, 128), ((100,), 72, 36), ((130, 0, 40), 200, 132), ((0, 256, 1), 130, 64)],
)
def test_ragged(counts: tuple[int, ...], m: int, n: int) -> None:
    run(counts, m, n)


@pytest.mark.parametrize("config", fp8_wgrad.CONFIGS)
def test_every_config(config: Config) -> None:
    run((200, 100), 150, 140, config)


@pytest.mark.parametrize("config", fp8_wgrad.CONFIGS)
def test_every_config_with_groups_without_tokens(config: Config) -> None:
    """The last one's first step lies past the last block of tokens."""
    run((0, 130, 0, 128, 0), 136, 132, config)


@pytest.mark.parametrize("config", fp8_wgrad.CONFIGS)
def test_every_config_adds_to_a_part_of_a_larger_gradient(config: Config) -> None:
    args = fp8_wgrad.inputs({"counts": (100, 28), "m": 40, "n": 64}, "cpu")
    whole = torch.full((4, 48, 80), 7.0)
    whole[::2, :40, :64] = args["out"]
    args["out"] = whole[::2, :40, :64]
    want = fp8_wgrad.reference(**args)
    assert_close(fp8_wgrad.launch(**args, config=config), want, "fp32")
    whole[::2, :40, :64] = 7.0
    assert (whole == 7.0).all(), "stored outside"


def test_dense_tokens_may_end_inside_a_block() -> None:
    args = fp8_wgrad.inputs({"counts": (144,), "m": 32, "n": 64}, "cpu")
    for name in ("a", "b"):
        args[name] = args[name][:, :144].contiguous()
    want = fp8_wgrad.reference(**args)
    assert_close(fp8_wgrad.launch(**args), want, "fp32")


def test_bad_input_is_refused() -> None:
    args = fp8_wgrad.inputs({"counts": (128,), "m": 32, "n": 64}, "cpu")
    with pytest.raises(ValueError, match=r"out: .*bfloat16"):
        fp8_wgrad.launch(**args | {"out": args["out"].bfloat16()})
    with pytest.raises(ValueError, match="sb: shape"):
        fp8_wgrad.launch(**args | {"sb": args["sb"][:1]})
    with pytest.raises(ValueError, match="config: split_k=2"):
        fp8_wgrad.launch(**args, config=Config(flatten=False, split_k=2))
