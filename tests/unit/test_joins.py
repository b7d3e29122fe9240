"""Measured kernels find ops by label, family and shape; what finds none is told."""

from dataclasses import replace

import pytest

from calibration.read.dualpipe_ops import TRACED
from hwmodels.formats import FORMATS
from simulator.published.kernel_check import measured_kernels
from tests.layer_work import v3_layers
from workloads.joins import Kernels, compute_ops, join
from workloads.ops import Attention, Gemm, MemoryOp

CAST = MemoryOp("cast", "cast", 3000.0)
OTHER = MemoryOp("another cast", "cast", 6000.0)
PRODUCT = Gemm("product", 8, 16, 32, FORMATS["bf16"])
CORE = Attention("core", 1, 64, 2, 2, 8, 8)
OPS = {"attn(F)": [CAST, PRODUCT, CORE, OTHER], "attn(B)": [CAST]}


def measured(family, *shapes, where="attn(F)", name="measured"):
    return Kernels(where, name, family, shapes)


def test_an_op_is_found_whatever_it_is_called():
    joined = join(OPS, [measured("cast", (1, 6000)), measured("bf16_narrow", (8, 16, 32))])
    assert joined.ops == (replace(OTHER, name="measured"), replace(PRODUCT, name="measured"))


def test_kernels_measured_together_add_up():
    (op,) = join(OPS, [measured("cast", (1, 3000), (1, 6000))]).ops
    assert (op.bytes, op.launches) == (9000, 2)


def test_bytes_may_differ_by_a_fiftieth_and_products_by_nothing():
    found = join(OPS, [measured("cast", (1, 3060)), measured("bf16_narrow", (8, 16, 33))]).ops
    assert [op is not None for op in found] == [True, False]
    assert join(OPS, [measured("cast", (1, 3070))]).ops == (None,)


def test_an_op_has_one_partner_only():
    joined = join(OPS, [measured("cast", (1, 3000)), measured("cast", (1, 3000))])
    assert [op is not None for op in joined.ops] == [True, False]
    assert joined.unmatched == ("attn(F): measured",)


@pytest.mark.parametrize(
    "odd",
    [
        measured("copy", (1, 3000)),
        measured("cast", (2, 3000)),
        measured("cast", (1, 3000), where="mlp(F)"),
        measured("cast", (1, 3000), (1, 9000)),
    ],
)
def test_what_finds_no_partner_is_told_on_both_sides(odd):
    """Of several kernels measured together none is taken where one is missing."""
    joined = join(OPS, [odd])
    assert joined.unmatched == (f"{odd.where}: measured",)
    assert len(joined.unmeasured) == 5
    assert joined.notes[0] == f"measured, but not in the workload: {odd.where}: measured"
    assert joined.notes[1] == "in the workload, but not measured: attn(F): cast"


def test_a_kernel_that_the_workload_loses_is_reported_by_the_check(monkeypatch):
    """The figures that rest on the join say how many found no partner; of two norms alike the one
    that is left is named.
    """
    from simulator import Experiment
    from simulator.published import kernel_check

    rows = measured_kernels()
    changed = (rows[0]._replace(family="copy"), *rows[1:])
    monkeypatch.setattr(kernel_check, "measured_kernels", lambda: changed)
    check = kernel_check.kernel_check(Experiment.load("deepseek-v3-pretrain"))
    assert check.notes == (
        "measured, but not in the workload: attn(F): add+rmsnorm hidden",
        "in the workload, but not measured: attn(F): add + rmsnorm (experts)",
    )


def test_what_is_published_and_what_is_fitted_are_joined_alike():
    """Times to compare with and the trace to fit name the same ops, families and shapes."""
    published = {(each.where, each.op): each.kernels for each in measured_kernels()}
    assert published == {(each.where, each.name): each for each in TRACED}
    moe = next(layer for layer in v3_layers() if layer.kind == "moe")
    assert join(compute_ops(moe), TRACED).notes == ()
