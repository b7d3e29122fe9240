"""A layer as a tape, without a GPU: its law, and what it is made of."""

from typing import Any

import pytest

pytest.importorskip("triton", reason="needs PyTorch and Triton")
pytest.importorskip("torch", reason="needs PyTorch and Triton")

import torch

from calibration.gpu_day.parts import stack
from calibration.gpu_day.sizes import RealSizes
from calibration.measure.measurement import shape_text
from calibration.model_ops import DECODE_BATCHES, decode_ops, measurable
from calibration.stack.dimensions import DEEPSEEK_V3
from calibration.stack.layer import bytes_of, decoding, training
from calibration.stack.names import BACKWARD, DECODE, FORWARD
from calibration.stack.tape import Tape
from calibration.validate.ops import op_of
from calibration.validate.workload import listed_ops
from kernels import load
from tests.unit.tapes import adding
from workloads.joins import Kernels, join, shape_of
from workloads.model import MODELS
from workloads.ops import MemoryOp

META = torch.device("meta")


@pytest.fixture(scope="module")
def layers() -> dict[str, Tape]:
    return {**training(DEEPSEEK_V3, META), **decoding(DEEPSEEK_V3, META)}


# The law of a tape.


@pytest.mark.parametrize("layer", [FORWARD, BACKWARD, DECODE])
def test_without_a_step_that_others_need_it_is_no_tape(layers, layer: str) -> None:
    """Each step in turn taken away: refused just where something reads what only it had written."""
    tape = layers[layer]
    for gone, step in enumerate(tape.steps):
        rest = (*tape.steps[:gone], *tape.steps[gone + 1 :])
        readers = [
            later.op
            for at, later in enumerate(rest)
            for name in later.reads
            if name in step.writes
            and at >= gone
            and name not in tape.given
            and not any(name in earlier.writes for earlier in rest[:at])
        ]
        if readers:
            with pytest.raises(ValueError, match="before it is written") as told:
                Tape(tape.buffers, tape.given, rest)
            assert repr(readers[0]) in str(told.value)
        else:
            Tape(tape.buffers, tape.given, rest)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([adding("a", ("y",), ("y",))], "step 'a': reads 'y' before it is written"),
        ([adding("a", ("x",), ("z",))], "step 'a': no buffer 'z'"),
        (
            [adding("a", ("x",), ("y",)), adding("a", ("y",), ("y",))],
            "step 'a': there is one of that",
        ),
    ],
)
def test_what_breaks_the_law_is_refused(steps, message: str) -> None:
    buffers = {"x": torch.zeros(1), "y": torch.zeros(1)}
    with pytest.raises(ValueError, match=message):
        Tape(buffers, {"x"}, steps)


def test_a_tape_is_played_in_order_and_without_what_is_left_out() -> None:
    buffers = {name: torch.zeros(1) for name in "xyz"}
    tape = Tape(buffers, {"x"}, [adding("a", ("x",), ("y",)), adding("b", ("y",), ("z",))])
    tape.bound_all()()
    assert (buffers["y"].item(), buffers["z"].item()) == (1, 2)
    buffers["x"].fill_(10)
    tape.bound_all(["a"])()
    assert (buffers["y"].item(), buffers["z"].item()) == (1, 2)


# What the layers are made of.


def test_every_op_that_is_priced_of_the_layer_is_in_it(layers) -> None:
    """What is measured of a model's expert layer and of its decode, kernel and shape alike."""
    model = MODELS.load("deepseek-v3")
    elsewhere = ("dense", "mtp", "head")
    trained = {
        (kernel, shape_text(shape))
        for kernel, shape, op in measurable(model)
        if not any(word in op.name for word in elsewhere)
    }
    decoded = {
        (op["kernel"], shape_text(op["shape"]))
        for op in decode_ops(model)
        if op["shape"] not in [other["shape"] for other in small_decode(model)]
    }
    has = {
        layer: {(step.kernel, shape_text(step.shape)) for step in tape.steps}
        for layer, tape in layers.items()
    }
    assert len(trained) > 40
    assert len(decoded) > 12
    assert trained <= has[FORWARD] | has[BACKWARD]
    assert decoded <= has[DECODE]


def small_decode(model) -> list[dict[str, Any]]:
    """Return the decode ops of the batch that the layer does not have."""
    ops = decode_ops(model)
    assert len(DECODE_BATCHES) == 2
    assert DECODE_BATCHES[1] == DEEPSEEK_V3.batch
    return ops[: len(ops) // 2]


def test_its_products_and_attention_are_those_of_the_workload_block_by_block(layers) -> None:
    """Joined by block, pass, family and shape, both ways; of what moves bytes, most are others."""
    listed = listed_ops(DEEPSEEK_V3)
    measured = [(step, op_of(step.op, step.kernel, step.shape, DEEPSEEK_V3))
                for tape in layers.values() for step in tape.steps]  # fmt: skip
    joined = join(
        listed,
        [Kernels(step.where, step.op, op.family, (shape_of(op),)) for step, op in measured],
    )
    assert {step.where for step, _ in measured} == set(listed)
    heavy = {op.name for _, op in measured if not isinstance(op, MemoryOp)}
    alone = {name for name in heavy if any(name in other for other in joined.unmatched)}
    assert alone == {"absorb k_b", "absorb v_b"}
    left = {name.partition(": ")[2] for name in joined.unmeasured}
    assert not left & {op.name for ops in listed.values() for op in ops if op.flops}


def test_an_op_counts_what_its_kernel_counts_but_for_scales_and_indices(layers) -> None:
    for step in (step for tape in layers.values() for step in tape.steps if step.ours):
        op = op_of(step.op, step.kernel, step.shape, DEEPSEEK_V3)
        flops, size = load(step.kernel).work(dict(step.shape))
        assert op.flops == flops, step
        if step.kernel == "moe_map":
            assert op.bytes == 0, "counted as launches, as in the workload"
        elif step.kernel == "rope":
            assert op.bytes == size - step.shape["tokens"] * step.shape["dim"] * 4, "angles"
        elif op.family == "bf16_narrow_wgrad":
            assert op.bytes - size == 6 * op.m * op.n, "the workload adds it up in FP32"
        else:
            assert op.bytes == pytest.approx(size, rel=0.04), step


def test_it_fits_on_one_gpu(layers) -> None:
    """Weights, their gradients in FP32 and what is kept: beside them, room for a desktop's GPU."""
    taken = bytes_of(*layers.values())
    gradients = 4 * sum(
        tensor.numel() for name, tensor in layers[BACKWARD].buffers.items() if "d.w." in name
    )
    assert gradients < taken < 20e9


def test_what_it_compiles_ahead_is_what_it_plays(layers) -> None:
    ahead = {(point.kernel, shape_text(point.shape)) for point in stack.points(RealSizes())}
    played = {
        (step.kernel, shape_text(step.shape))
        for tape in layers.values()
        for step in tape.steps
        if step.ours
    }
    assert ahead == played
