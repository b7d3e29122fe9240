"""Shapes of recorded ops, and which argument is what: as the schemas of torch have it."""

import pytest

from calibration.read.trace_events import HostOp
from calibration.read.traced_shapes import CORES, OFFSETS, PRODUCTS, SCALES, traced_shape

BF16, FP8, FLOAT = "c10::BFloat16", "c10::Float8_e4m3fn", "float"


def op(
    name: str, *sizes: tuple[int, ...], kind: str = BF16, inputs: tuple[str, ...] = ()
) -> HostOp:
    return HostOp(f"aten::{name}", sizes, (kind,) * len(sizes), inputs)


@pytest.mark.parametrize(
    ("product", "family", "sizes"),
    [
        (op("mm", (8, 4), (4, 16)), "bf16", (8, 16, 4, 1)),
        (op("addmm", (16,), (8, 4), (4, 16)), "bf16", (8, 16, 4, 1)),
        (op("bmm", (3, 8, 4), (3, 4, 16)), "bf16", (24, 16, 4, 3)),
        (op("baddbmm", (8, 16), (3, 8, 4), (3, 4, 16)), "bf16", (24, 16, 4, 3)),
        (op("_grouped_mm", (80, 4), (5, 4, 16), (5,)), "bf16_grouped", (80, 16, 4, 5)),
        (op("_grouped_mm", (8, 40), (40, 16), (5,)), "bf16_grouped", (40, 16, 8, 5)),
        (op("_scaled_mm", (8, 256), (256, 16), (), (), kind=FP8), "fp8", (8, 16, 256, 1)),
        (op("_scaled_mm", (8, 256), (256, 16), (8, 1), (1, 16), kind=FP8), "fp8", (8, 16, 256, 1)),
        (op("_scaled_mm", (8, 256), (256, 16), (8, 2), (2, 1), kind=FP8),
         "fp8_block", (8, 16, 256, 1)),
    ],
)  # fmt: skip
def test_a_product_has_the_sizes_of_its_factors(
    product: HostOp, family: str, sizes: tuple[float, ...]
) -> None:
    shape = traced_shape(product)
    assert shape is not None
    assert (shape.kind, shape.family) == ("gemm", family)
    assert tuple(shape.numbers.values()) == sizes
    assert shape.site == (sizes[1], sizes[2])


@pytest.mark.parametrize(
    "unknown",
    [
        op("mm", (8, 4), (5, 16)),
        op("mm", (8, 4), (4, 0)),
        op("mm", (8, 4)),
        op("mm", (8, 4), (4, 16), kind=FLOAT),
        op("mm", (8, 4, 2), (2, 16)),
        op("_grouped_mm", (8, 40), (40, 16), (0,)),
        op("addmm", (16,)),
        op("relu", (8, 4)),
        op("_flash_attention_forward", (2, 64, 8, 128), (2, 64, 2, 128), (2, 64, 2, 128)),
        op("_flash_attention_forward", inputs=("",) * 8 + ("True",)),
    ],
)
def test_what_is_not_known_has_no_shape(unknown: HostOp) -> None:
    assert traced_shape(unknown) is None


def test_attention_has_the_sizes_of_query_key_and_value() -> None:
    """PyTorch's cores have heads before tokens, FlashAttention's own tokens before heads."""
    inputs = ("",) * 4 + ("True",)
    forward = op("_scaled_dot_product_flash_attention", (2, 8, 64, 192), (2, 4, 64, 192),
                 (2, 4, 64, 128), inputs=inputs)  # fmt: skip
    inputs = ("",) * 11 + ("False",)
    backward = op("_flash_attention_backward", (2, 64, 8, 128), (2, 64, 8, 192), (2, 64, 4, 192),
                  (2, 64, 4, 128), inputs=inputs)  # fmt: skip
    for core, family, causal in (
        (forward, "attention_forward", True),
        (backward, "attention_backward", False),
    ):
        shape = traced_shape(core)
        assert shape is not None
        assert (shape.kind, shape.family) == ("attention", family)
        assert shape.alike["backward"] == (core is backward)
        assert dict(shape.numbers) == {
            "sequences": 2, "length": 64, "heads": 8, "kv_heads": 4, "d_qk": 192, "d_v": 128,
            "causal": causal,
        }  # fmt: skip
        assert shape.size == 128


def test_keys_of_another_length_are_not_guessed_at() -> None:
    q, kv = (2, 8, 64, 128), (2, 8, 128, 128)
    inputs = ("",) * 4 + ("True",)
    assert traced_shape(op("_scaled_dot_product_flash_attention", q, kv, kv, inputs=inputs)) is None


def arguments(name: str) -> list[str]:
    torch = pytest.importorskip("torch")
    found = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    if found is None:
        pytest.skip(f"this torch has no {name}")
    return [argument.name for argument in found.default._schema.arguments]


@pytest.mark.parametrize("name", [name for name in CORES if name.startswith("aten::")])
def test_arguments_of_attention_are_where_torch_has_them(name: str) -> None:
    names, core = arguments(name), CORES[name]
    assert names[core.query : core.query + 3] == ["query", "key", "value"]
    assert names[core.causal] in ("is_causal", "custom_mask_type")


@pytest.mark.parametrize("name", PRODUCTS)
def test_arguments_of_products_are_where_torch_has_them(name: str) -> None:
    names, first = arguments(name), PRODUCTS[name]
    assert names[first] in ("self", "mat1", "batch1")
    assert names[first + 1] in ("mat2", "batch2")
    assert name not in OFFSETS or names[OFFSETS[name]] == "offs"
    assert name not in SCALES or names[SCALES[name]] == "scale_a"
