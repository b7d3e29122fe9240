"""What the layers of a GPU day launch is what was compiled ahead for them, strides and all."""

import os
from collections.abc import Callable

import pytest
import torch

from calibration.gpu_day.parts.stack import points
from calibration.gpu_day.sizes import RealSizes
from calibration.measure.ahead import compiling
from calibration.stack.dimensions import DEEPSEEK_V3
from calibration.stack.layer import decoding, training
from kernels import load

META = torch.device("meta")

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter cannot compile"
)


def hashes(launch: Callable[[], object]) -> dict[str, str]:
    """Return the kernels that a launch needs, by what Triton tells them apart by."""
    with compiling() as compiled:
        launch()
    return {kernel.hash: name for name, kernel in compiled}


def test_no_layer_waits_for_a_compiler() -> None:
    ahead: set[str] = set()
    for point in points(RealSizes()):
        module = load(point.kernel)
        with compiling():  # the inputs of a backward pass come from the forward kernel
            args = module.inputs(dict(point.shape), META)
        ahead.update(hashes(lambda module=module, args=args: module.launch(**args)))
    late = {
        f"{layer}: {step.op}: {name}"
        for layer, tape in (training(DEEPSEEK_V3, META) | decoding(DEEPSEEK_V3, META)).items()
        for step in tape.steps
        for digest, name in hashes(tape.bound(step)).items()
        if digest not in ahead
    }
    assert len(ahead) > 30
    assert not late, late
