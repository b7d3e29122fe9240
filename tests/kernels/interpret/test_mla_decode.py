"""Absorbed MLA decode over a paged cache against float64: ragged and empty sequences, splits."""

import pytest
import torch

from calibration.measure.numerics import poison
from kernels import mla_decode
from kernels.mla_decode import Config
from tests.kernels.numerics import assert_close


def run(shape: dict[str, int], config: Config | None = None, sms: int | None = None) -> None:
    args = mla_decode.inputs(shape, "cpu", seed=shape["length"])
    out = (
        torch.empty(shape["batch"], shape["heads"], 512, dtype=torch.bfloat16),
        torch.empty(shape["batch"], shape["heads"]),
    )
    poison(*out)
    mla_decode.launch(**args, out=out, config=config, sms=sms)
    want = mla_decode.reference(**args)
    assert_close(out[0], want[0], "bf16", "o")
    empty = args["lengths"] == 0
    assert_close(out[1][~empty], want[1][~empty], "fp32", "lse")
    assert (out[1][empty] == -torch.inf).all()


@pytest.mark.parametrize(
    ("batch", "heads", "length", "ragged"),
    [(1, 128, 64, 0), (3, 16, 200, 1), (2, 5, 65, 1), (1, 40, 1, 0), (2, 20, 130, 0)],
)
def test_ragged(batch: int, heads: int, length: int, ragged: int) -> None:
    run({"batch": batch, "heads": heads, "length": length, "ragged": ragged})


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_splits_change_nothing(splits: int) -> None:
    run({"batch": 2, "heads": 16, "length": 300, "ragged": 1}, Config(16, splits=splits))


def test_splits_fill_the_sms() -> None:
    assert mla_decode.splits_for(units=2, pages=1000, room=132) == 66
    assert mla_decode.splits_for(units=200, pages=1000, room=132) == 1
    assert mla_decode.splits_for(units=2, pages=3, room=132) == 3


def test_bad_input_is_refused() -> None:
    args = mla_decode.inputs({"batch": 1, "heads": 16, "length": 8, "ragged": 0}, "cpu")
    with pytest.raises(ValueError, match="q: shape"):
        mla_decode.launch(**args | {"q": args["q"][..., :512]})
    with pytest.raises(ValueError, match=r"lengths: .*int64"):
        mla_decode.launch(**args | {"lengths": args["lengths"].long()})
