"""Cost of the softmax attention core of training and prefill, in blocks of the softmax rectangle.

A work unit is `block_rows` rows of queries (backward: of keys) of one head of one sequence. It
walks the blocks on the other axis, `block_keys` keys each: all of them, or under a causal mask
only those of its row of the triangle, so that a head of n = ceil(length / 128) blocks each way has
n (n + 1) / 2, the diagonal ones in full: the tensor core computes a masked block before it is
masked. Keys of a prefix are seen by all, a sliding window leaves old blocks out. Where a library
packs heads, the rows of a unit are tokens times the query heads that share their keys
(`attention_blocks`).

    c_block = 2 * rows * keys * depth / (R eta) + block_overhead
    depth   = d_qk + d_v forward (two products), 3 d_qk + 2 d_v backward (five products)
    c_unit  = blocks of the unit * c_block + unit_overhead + rows in use * row
    spread  = sum of c_unit / SMs + imbalance * max(0, 1 - SMs / units) * longest c_unit
    t_comp  = max(spread, longest c_unit) / f
    t_mem   = bytes / (eh B),  bytes of q, k, v, o once, backward also of their gradients
    t_core  = max((t_comp^pn + t_mem^pn)^(1/pn), FLOPs / (pc peak))
    t       = launch + t_core + conversion of the cache + passed bytes / (ep B)

R is the tensor FLOPs of one SM in one clock, f the clock. Units are many and handed out as SMs
become free, so their sum is spread evenly but for what is left over at the end; only a unit longer
than that share holds the op alone. Libraries that split keys cut every unit in s parts where all
parts fit on the SMs at once: the longest unit then has ceil(blocks / s), units are s times as
many, combining is added (`attention_cache`), and the best s counts.

What a serving op does to its new tokens before the core is a pass over memory: rotary embedding,
putting keys and values (of MLA the latent) in the cache, quantising for a core in FP8. Its bytes
are a matter of the shape; in training they are other ops.

The backward pass also writes and converts dQ and preprocesses dO; those are memory ops of their
own. The algebraic form is a matter of the shape: non-absorbed MLA has d_qk, d_v = 192, 128 and as
many key-value heads as heads (TensorRT-LLM), absorbed MLA 576, 512 and one (SGLang); both fit
measured prefill kernels in that form only (tables of ai-dynamo/aiconfigurator @095f58a5).
"""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Mask
from hwmodels.chip import ChipSpec
from hwmodels.costs.attention_blocks import Blocks, attention_blocks
from hwmodels.costs.attention_cache import CONVERTED, combine_s, conversion_s, parts
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.costs.octaves import octaves
from hwmodels.costs.work import attention_work
from hwmodels.spec import Spec
from hwmodels.units import LEAST_SHARE, BytesPerClock, Seconds, Share


class AttentionParameters(Spec):
    """What one family of attention kernels achieves; the symbol in the equation follows.

    Attributes:
        block_rows, block_keys: rows of a work unit, and keys of a block.
        packs_heads: whether rows of a unit are tokens times the heads that share their keys.
        splits_keys: whether few units are cut along their keys.
        tensor_efficiency: tensor issue efficiency eta inside a block, against the peak at
            `ChipSpec.peak_clock_hz`; softmax that is not hidden behind products is in it.
        block_overhead_cycles: cycles per block that do not shrink with a faster tensor core.
        unit_overhead_cycles: prologue and epilogue of one work unit.
        row_cycles: cycles per row in use: its query is loaded and its output stored.
        imbalance: share of the longest unit that others wait for at the end of many.
        hbm_efficiency: eh, achieved share of the HBM bandwidth.
        overlap_exponent: pn, how well compute and memory overlap.
        sustained_fraction: pc, tensor rate under sustained load / peak. 1: no cap.
        split_s: ts, fixed cost of combining parts.
        l2_bytes_per_clock: l2b, L2 to one SM, when parts are combined.
        convert_s, convert_bytes_per_clock: launch and rate per SM of converting an FP8 cache
            first, or None where the kernel reads the cache as it is.
        pass_efficiency: ep, achieved share of the HBM bandwidth in passes before the core.
        launch_s: seconds per launch.
    """

    block_rows: Literal[64, 128] = 128
    block_keys: Literal[64, 128] = 128
    packs_heads: bool = False
    splits_keys: bool = False
    tensor_efficiency: Annotated[float, Field(gt=LEAST_SHARE, le=1.09)]
    block_overhead_cycles: Annotated[float, Field(ge=0, le=4000)] = 0.0
    unit_overhead_cycles: Annotated[float, Field(ge=0, le=20000)] = 0.0
    row_cycles: Annotated[float, Field(ge=0, le=1000)] = 0.0
    imbalance: Annotated[float, Field(ge=0, le=2)] = 0.0
    hbm_efficiency: Share = 0.9
    overlap_exponent: Annotated[float, Field(ge=1, le=12)] = 4.0
    sustained_fraction: Annotated[float, Field(ge=0.4, le=1)] = 1.0
    split_s: Annotated[Seconds, Field(le=20e-6)] = 0.0
    l2_bytes_per_clock: Annotated[float, Field(ge=15, le=128)] = 64.0
    convert_s: Annotated[Seconds, Field(le=20e-6)] = 0.0
    convert_bytes_per_clock: BytesPerClock | None = None
    pass_efficiency: Share = 0.8
    launch_s: Seconds = 0.0


class _Work(NamedTuple):
    """What to compute, arrays that broadcast.

    Attributes:
        groups: heads, or packs of them, of all sequences.
        blocks: of one group.
        rows: in use, of one group.
        depth: multiply-adds along which one element of the rectangle runs.
        outputs: elements of the output.
        new_bytes: of q and o, with their gradients.
        kv_bytes: of k and v as they are stored, with their gradients.
        passed_bytes: read and written before the core.
    """

    groups: Floats
    blocks: Blocks
    rows: Floats
    depth: Floats
    outputs: Floats
    new_bytes: Floats
    kv_bytes: Floats
    passed_bytes: Floats
    sms: Floats


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
    prefix: npt.ArrayLike = 0,
    window: npt.ArrayLike = np.inf,
    kv_token_bytes: npt.ArrayLike | None = None,
    passed_bytes: npt.ArrayLike = 0,
    tensor_family: str = "bf16",
    element_bytes: float = 2.0,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of attention cores; all shape arguments broadcast.

    Args:
        chip: where they run.
        parameters: of the kernel family (forward and backward are two families).
        sequences, length: sequences of `length` new tokens each, whose queries are computed.
        heads, kv_heads: query heads, and the key-value heads they share.
        d_qk, d_v: elements of one head's query and key, and of its value.
        causal: whether a query sees only keys up to its own position.
        backward: gradients of q, k and v instead of the output.
        prefix: tokens before the new ones, whose keys are seen too.
        window: keys a query sees at most, its own included; without a causal mask, all.
        kv_token_bytes: bytes of the keys and values of one token of one sequence as they are
            stored; `kv_heads (d_qk + d_v) element_bytes` by default.
        passed_bytes: bytes that passes before the core read and write, for each new token of a
            sequence; none by default.
        tensor_family: key of `ChipSpec.tensor`.
        element_bytes: bytes of one element of q, k, v, o (of q and o: their mean).
        sms: SMs the op may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    used = chip.sms if sms is None else sms
    sizes = (sequences, length, heads, kv_heads, d_qk, d_v, prefix, window, used, passed_bytes)
    columns = [np.asarray(size, np.float64) for size in sizes]
    is_causal, is_backward = np.asarray(causal, bool), np.asarray(backward, bool)
    work = _work(parameters, is_causal, is_backward, kv_token_bytes, element_bytes, *columns)
    return _time(chip, parameters, work, tensor_family)


def features(chip: ChipSpec, parameters: AttentionParameters, **shape: Any) -> Floats:
    """Return (rows, 9) where attention cores lie; keywords as of `attention_time_s`."""
    price_s = attention_time_s(chip, parameters, **shape).time_s
    heads, kv_heads = (np.asarray(shape[name], np.float64) for name in ("heads", "kv_heads"))
    prefix, length = np.asarray(shape.get("prefix", 0.0)), shape["length"]
    seen = np.minimum(prefix + length, shape.get("window", np.inf))
    sizes = (shape["sequences"], length, kv_heads, heads / kv_heads, 1.0 + prefix, seen)
    return octaves(price_s, attention_work(**shape), *sizes)


def _work(
    parameters: AttentionParameters,
    causal: Mask,
    backward: Mask,
    kv_token_bytes: npt.ArrayLike | None,
    element_bytes: float,
    sequences: Floats,
    length: Floats,
    heads: Floats,
    kv_heads: Floats,
    d_qk: Floats,
    d_v: Floats,
    prefix: Floats,
    window: Floats,
    sms: Floats,
    passed: Floats,
) -> _Work:
    stored = kv_heads * (d_qk + d_v) * element_bytes
    stored = stored if kv_token_bytes is None else np.asarray(kv_token_bytes, np.float64)
    packed = heads / kv_heads if parameters.packs_heads else np.ones(())
    blocks = attention_blocks(
        length, causal, prefix=prefix, window=window, heads=packed,
        rows=parameters.block_rows, keys=parameters.block_keys,
    )  # fmt: skip
    with_gradients = np.where(backward, 2.0, 1.0)
    return _Work(
        groups=sequences * heads / packed,
        blocks=blocks,
        rows=length * packed,
        depth=np.where(backward, 3 * d_qk + 2 * d_v, d_qk + d_v),
        outputs=sequences * length * heads * d_v,
        new_bytes=with_gradients * sequences * length * heads * (d_qk + d_v) * element_bytes,
        kv_bytes=with_gradients * sequences * (length + np.minimum(prefix, window)) * stored,
        passed_bytes=sequences * length * passed,
        sms=sms,
    )


def _time(
    chip: ChipSpec, parameters: AttentionParameters, work: _Work, tensor_family: str
) -> KernelTime:
    compute_s, cap_s = _compute_s(chip, parameters, work, tensor_family)
    converts = parameters.convert_bytes_per_clock is not None
    moved = work.new_bytes + (CONVERTED if converts else 1.0) * work.kv_bytes
    memory_s = moved / (parameters.hbm_efficiency * chip.hbm_bytes_per_s)
    pass_s = work.passed_bytes / (parameters.pass_efficiency * chip.hbm_bytes_per_s)
    work_s = smooth_maximum(parameters.overlap_exponent, compute_s, memory_s)
    time_s = parameters.launch_s + np.maximum(work_s, cap_s) + pass_s
    time_s = time_s + conversion_s(
        chip, parameters.convert_s, parameters.convert_bytes_per_clock, work.kv_bytes, work.sms
    )
    index = np.where(memory_s + pass_s > compute_s, 1, 0)
    index = np.where(cap_s > np.maximum(work_s, pass_s), 3, index)
    index = np.where(2 * parameters.launch_s > time_s, 2, index)
    return KernelTime(*np.broadcast_arrays(time_s, index))


def _compute_s(
    chip: ChipSpec, parameters: AttentionParameters, work: _Work, tensor_family: str
) -> tuple[Floats, Floats]:
    """Return the time of arithmetic, and the least that its FLOPs take under sustained load."""
    groups, blocks, used = work.groups, work.blocks, work.sms
    peak = chip.flops_per_clock_per_sm(tensor_family)
    flops = 2 * parameters.block_rows * parameters.block_keys * work.depth
    c_block = flops / (peak * parameters.tensor_efficiency) + parameters.block_overhead_cycles
    units = groups * blocks.units
    c_unit = parameters.unit_overhead_cycles
    c_rows = groups * work.rows * parameters.row_cycles
    c_end = c_unit + np.minimum(work.rows, parameters.block_rows) * parameters.row_cycles
    left_over = parameters.imbalance * np.maximum(0.0, 1 - used / units)

    def cycles(count: Floats) -> Floats:
        spread = (groups * blocks.total * c_block + count * units * c_unit + c_rows) / used
        longest = np.ceil(blocks.longest / count) * c_block + c_end
        return np.asarray(np.maximum(spread + left_over * longest, longest))

    cap_s = (
        groups
        * blocks.total
        * flops
        / (parameters.sustained_fraction * peak * used * chip.peak_clock_hz)
    )
    whole_s = cycles(np.ones(())) / chip.peak_clock_hz
    if not parameters.splits_keys:
        return whole_s, cap_s
    count = parts(whole_s.ndim)
    split_s = cycles(count) / chip.peak_clock_hz + combine_s(
        chip, parameters.split_s, parameters.l2_bytes_per_clock, count, work.outputs, used
    )
    split_s = np.where(count * units <= used, split_s, np.inf)
    return np.minimum(whole_s, split_s.min(axis=0)), cap_s
