"""Which structure each family's constants are fitted in."""

import numpy as np
import pytest

from calibration.fit.families import cost_model
from calibration.rows import KernelRows, Setting
from hwmodels.chip import CHIPS

H200 = CHIPS.load("h200")
BF16 = {"tensor_family": "bf16", "element_bytes": 2.0, "output_bytes": 2.0}
FP8 = {"tensor_family": "fp8", "element_bytes": 1.0, "output_bytes": 2.0}


def products(family: str, operands: dict[str, object], library: str = "trtllm") -> KernelRows:
    sizes = np.array([64.0, 128.0])
    shape = {"m": sizes, "n": sizes, "k": sizes, "groups": 1.0} | operands
    return KernelRows(
        Setting("h200", library, "1"), "gemm", family, shape, sizes, np.arange(2), sizes, "here"
    )


@pytest.mark.parametrize(
    ("family", "operands", "library", "quantises"),
    [
        ("bf16", BF16, "trtllm", False),
        ("mla_absorb", BF16, "trtllm", False),
        ("mla_absorb_fp8_block", FP8, "trtllm", True),
        ("fp8", FP8, "sglang", True),
        ("fp8_block", FP8, "deepgemm", False),
    ],
)
def test_what_is_in_bf16_has_no_activations_to_quantise(family, operands, library, quantises):
    model = cost_model(products(family, operands, library), H200)
    assert all(start.contains_quantise == quantises for start in model.starts)
    assert ("quantise_bytes" in model.free) == quantises
