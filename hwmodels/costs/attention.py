"""Cost of the softmax attention core of training and prefill, in blocks of 128 x 128.

A work unit is one block of 128 queries (backward: of 128 keys) of one head of one sequence. It
walks the blocks on the other axis: all `n = ceil(length / 128)` of them, or under a causal mask
only those of its row of the triangle, so that a head has n (n + 1) / 2 blocks, the diagonal ones
in full: the tensor core computes a masked block before it is masked.

    c_block = 2 * 128 * 128 * depth / (R eta) + block_overhead
    depth   = d_qk + d_v forward (two products), 3 d_qk + 2 d_v backward (five products)
    c_unit  = blocks of the unit * c_block + unit_overhead
    t_comp  = max(sum of c_unit / SMs, longest c_unit) / f
    t_mem   = bytes / (eh B),  bytes of q, k, v, o once, backward also of their gradients
    t       = launch + (t_comp^4 + t_mem^4)^(1/4)

R is the tensor FLOPs of one SM in one clock, f the clock. Units are many and handed out as SMs
become free, so their sum is spread evenly; only a unit longer than that share holds the op alone.
The backward pass also writes and converts dQ and preprocesses dO; those are memory ops of their
own. This non-absorbed form (192 + 128 for MLA) is the one that fits measured prefill kernels
(TensorRT-LLM tables of ai-dynamo/aiconfigurator @095f58a5).
"""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.spec import Spec
from hwmodels.units import LEAST_SHARE, Seconds, Share

BLOCK = 128
"""Queries and keys of one block."""


class AttentionParameters(Spec):
    """What one family of attention kernels achieves.

    Attributes:
        tensor_efficiency: tensor issue efficiency eta inside a block, against the peak at
            `ChipSpec.peak_clock_hz`; softmax that is not hidden behind products is in it.
        block_overhead_cycles: cycles per block that do not shrink with a faster tensor core.
        unit_overhead_cycles: prologue and epilogue of one work unit.
        hbm_efficiency: achieved share of the HBM bandwidth.
        launch_s: seconds per launch.
    """

    tensor_efficiency: Annotated[float, Field(gt=LEAST_SHARE, le=1.09)]
    block_overhead_cycles: Annotated[float, Field(ge=0, le=4000)] = 0.0
    unit_overhead_cycles: Annotated[float, Field(ge=0, le=20000)] = 0.0
    hbm_efficiency: Share = 0.9
    launch_s: Seconds = 0.0


def attention_blocks(length: npt.ArrayLike, causal: npt.ArrayLike) -> Floats:
    """Return how many 128 x 128 blocks one head of one sequence of `length` tokens computes."""
    n = np.ceil(np.asarray(length, np.float64) / BLOCK)
    return np.where(np.asarray(causal, bool), n * (n + 1) / 2, n * n)


def attention_time_s(
    chip: ChipSpec,
    parameters: AttentionParameters,
    sequences: npt.ArrayLike,
    length: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    d_qk: npt.ArrayLike,
    d_v: npt.ArrayLike,
    *,
    causal: npt.ArrayLike = True,
    backward: npt.ArrayLike = False,
    tensor_family: str = "bf16",
    element_bytes: float = 2.0,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of attention cores; all shape arguments broadcast.

    Args:
        chip: where they run.
        parameters: of the kernel family (forward and backward are two families).
        sequences, length: sequences of `length` tokens each; queries and keys alike.
        heads, kv_heads: query heads, and the key-value heads they share.
        d_qk, d_v: elements of one head's query and key, and of its value.
        causal: whether a query sees only keys up to its own position.
        backward: gradients of q, k and v instead of the output.
        tensor_family: key of `ChipSpec.tensor`.
        element_bytes: bytes of one element of q, k, v, o.
        sms: SMs the op may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    used = np.asarray(chip.sms if sms is None else sms, np.float64)
    n_seq, n_tok, n_head, n_kv, qk, v = (
        np.asarray(x, np.float64) for x in (sequences, length, heads, kv_heads, d_qk, d_v)
    )
    is_backward = np.asarray(backward, bool)
    depth = np.where(is_backward, 3 * qk + 2 * v, qk + v)
    rate = chip.flops_per_clock_per_sm(tensor_family) * parameters.tensor_efficiency
    c_block = 2 * BLOCK * BLOCK * depth / rate + parameters.block_overhead_cycles

    longest = np.ceil(n_tok / BLOCK)
    blocks = n_seq * n_head * attention_blocks(n_tok, causal)
    units = n_seq * n_head * longest
    cycles = np.maximum(
        (blocks * c_block + units * parameters.unit_overhead_cycles) / used,
        longest * c_block + parameters.unit_overhead_cycles,
    )
    moved = n_seq * n_tok * (n_head + n_kv) * (qk + v) * element_bytes
    compute_s = cycles / chip.peak_clock_hz
    memory_s = np.where(is_backward, 2.0, 1.0) * moved
    memory_s = memory_s / (parameters.hbm_efficiency * chip.hbm_bytes_per_s)
    time_s = parameters.launch_s + smooth_maximum(4.0, compute_s, memory_s)
    index = np.where(memory_s > compute_s, 1, 0)
    index = np.where(2 * parameters.launch_s > time_s, 2, index)
    return KernelTime(*np.broadcast_arrays(time_s, index))
