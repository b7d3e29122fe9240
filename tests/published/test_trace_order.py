"""The weave of a forward and a backward pass against the order of DeepSeek's training trace.

deepseek-ai/profile-data @4496024: a forward chunk overlapped with a backward chunk over 4 layers
with experts, on H800. Its host ranges name the block that each kernel belongs to.
"""

from itertools import groupby

import pytest

from calibration.read.dualpipe_trace import COMMUNICATION_STREAM, COMPUTE_STREAM
from calibration.read.torch_trace import read_trace
from workloads.ops import COMM, COMPUTE
from workloads.scenarios.training_parts import step_segments
from workloads.weave import Weaver


@pytest.fixture(scope="module")
def traced(measured_data):
    return read_trace(measured_data / "traces" / "deepseek_v3_h800_train.json.gz")


def blocks(kernels, stream):
    """Names of the blocks whose kernels run on a stream, in the order in which they start."""
    own = sorted((k for k in kernels if k.stream == stream), key=lambda kernel: kernel.start_s)
    runs = groupby((kernel.annotation, kernel.occurrence) for kernel in own)
    return [name for (name, _), _ in runs if name]


def woven(v3_step, stream):
    layers = v3_step.stages[3]
    program = step_segments("FB", layers, layers, Weaver())
    labels = [each.label for each in program if each.stream == stream]
    runs = groupby((label.block, label.pass_, label.layer) for label in labels)
    return [f"{block}({pass_})" for (block, pass_, _), _ in runs]


@pytest.mark.parametrize(
    ("ours", "theirs"), [(COMPUTE, COMPUTE_STREAM), (COMM, COMMUNICATION_STREAM)]
)
def test_a_pair_runs_in_the_order_of_the_trace(traced, v3_step, ours, theirs):
    """Four layers with experts forward, four backward: 24 blocks of compute and 16 exchanges."""
    expected = blocks(traced, theirs)
    assert woven(v3_step, ours) == expected
    assert len(expected) == (24 if ours == COMPUTE else 16)
