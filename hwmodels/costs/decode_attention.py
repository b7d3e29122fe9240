"""Cost of attention of a few new tokens of each sequence over a long cache.

The query heads that share a key-value head are the rows of a work unit (all heads, for absorbed
MLA, whose latent is one key-value head of 576 + 512). A unit walks its keys in blocks; units fewer
than SMs are cut in s parts along their keys, as many as fit at once, and the best s counts.

    rows    = what is in use of `block_rows` rows, in whole tensor-core instructions
    c_block = (c_mma^4 + c_load^4)^(1/4) + block_overhead
    c_mma   = 2 rows keys (d_qk + d_v) / (R eta),   c_load = keys kv_bytes / bws
    u       = sequences kv_heads ceil(queries heads / kv_heads / block_rows);  w = u s / SMs
    waves   = lam ceil(w) + (1 - lam) max(1, w)
    t_units = waves (ceil(blocks / s) c_block + unit_overhead) / f
    t_mem   = bytes / (eh B),  bytes of the cache and of q, o once
    t       = launch + (t_units^pn + t_mem^pn)^(1/pn) + [s > 1] combine
            + row sequences queries heads / (SMs f) + conversion of the cache

With a window only its keys count. Blocks, splits and the smooth maximum are those of cost_model.md
§5 (MLA tables of ai-dynamo/aiconfigurator @095f58a5); that s is chosen and not floor(SMs / u)
keeps a chip with more SMs from being slower. Sequences of unlike lengths are not modelled: the
mean length of a batch prices them as if the library balanced them perfectly.
"""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from hwmodels.arrays import Floats, Mask
from hwmodels.chip import ChipSpec
from hwmodels.costs.attention_cache import CONVERTED, combine_s, conversion_s, parts
from hwmodels.costs.kernel_time import KernelTime, smooth_maximum
from hwmodels.costs.octaves import octaves
from hwmodels.costs.work import decode_attention_work
from hwmodels.spec import Spec
from hwmodels.units import LEAST_SHARE, BytesPerClock, Seconds, Share


class DecodeAttentionParameters(Spec):
    """What one family of decode kernels achieves; the symbol in the equation follows.

    Attributes:
        block_rows, block_keys: rows of a work unit, and keys of a block.
        tensor_efficiency: eta, tensor issue efficiency against the peak at
            `ChipSpec.peak_clock_hz`.
        block_overhead_cycles: cycles per block that neither products nor loads hide.
        unit_overhead_cycles: prologue and epilogue of one work unit or part of it.
        row_cycles: cycles of one SM per query head of every sequence, whatever it attends to.
        sm_bytes_per_clock: bws, memory-level parallelism of one SM.
        wave_quantisation: lam, 1 when whole waves are paid, 0 when units are spread evenly.
        hbm_efficiency: eh, achieved share of the HBM bandwidth.
        overlap_exponent: pn, how well units and memory overlap.
        split_s: ts, fixed cost of combining parts.
        l2_bytes_per_clock: l2b, L2 to one SM, when parts are combined.
        convert_s, convert_bytes_per_clock: launch and rate per SM of converting an FP8 cache
            first, or None where the kernel reads the cache as it is.
        launch_s: seconds per launch.
    """

    block_rows: Literal[64, 128] = 64
    block_keys: Literal[64, 128] = 64
    tensor_efficiency: Annotated[float, Field(gt=LEAST_SHARE, le=1.09)]
    block_overhead_cycles: Annotated[float, Field(ge=0, le=4000)] = 0.0
    unit_overhead_cycles: Annotated[float, Field(ge=0, le=20000)] = 0.0
    row_cycles: Annotated[float, Field(ge=0, le=1000)] = 0.0
    sm_bytes_per_clock: Annotated[float, Field(ge=8, le=128)] = 40.0
    wave_quantisation: Annotated[float, Field(ge=0, le=1)] = 1.0
    hbm_efficiency: Share = 0.9
    overlap_exponent: Annotated[float, Field(ge=1, le=12)] = 4.0
    split_s: Annotated[Seconds, Field(le=20e-6)] = 0.0
    l2_bytes_per_clock: Annotated[float, Field(ge=15, le=128)] = 64.0
    convert_s: Annotated[Seconds, Field(le=20e-6)] = 0.0
    convert_bytes_per_clock: BytesPerClock | None = None
    launch_s: Seconds = 0.0


class _Work(NamedTuple):
    """What to compute, arrays of one shape.

    Attributes:
        units: work units, not cut.
        rows: queries that share keys.
        keys: that each of them sees.
        depth: multiply-adds per query and key.
        kv_bytes: of one key and value as the kernel reads them.
        heads: query heads of all new tokens.
        outputs: elements of the output.
        moved_bytes: from and to HBM.
        stored_bytes: the whole cache.
    """

    units: Floats
    rows: Floats
    keys: Floats
    depth: Floats
    kv_bytes: Floats
    heads: Floats
    outputs: Floats
    moved_bytes: Floats
    stored_bytes: Floats
    sms: Floats


def decode_attention_time_s(
    chip: ChipSpec,
    parameters: DecodeAttentionParameters,
    sequences: npt.ArrayLike,
    kv_length: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    d_qk: npt.ArrayLike,
    d_v: npt.ArrayLike,
    *,
    queries: npt.ArrayLike = 1,
    window: npt.ArrayLike = np.inf,
    kv_token_bytes: npt.ArrayLike | None = None,
    tensor_family: str = "bf16",
    element_bytes: float = 2.0,
    sms: npt.ArrayLike | None = None,
) -> KernelTime:
    """Return the time of decode attention; all shape arguments broadcast.

    Args:
        chip: where it runs.
        parameters: of the kernel family.
        sequences, kv_length: sequences, and keys of each, those of its new tokens included.
        heads, kv_heads: query heads, and the key-value heads they share.
        d_qk, d_v: elements of one head's query and key, and of its value.
        queries: new tokens of each sequence (more than one with speculative decoding).
        window: keys a query sees at most, its own included.
        kv_token_bytes: bytes of the keys and values of one token of one sequence as they are
            stored (MLA's latent is both); `kv_heads (d_qk + d_v) element_bytes` by default.
        tensor_family: key of `ChipSpec.tensor`.
        element_bytes: bytes of one element of q and o.
        sms: SMs the op may use, all of the chip by default.

    Raises:
        SpecError: the chip has no such tensor rate.
    """
    used = chip.sms if sms is None else sms
    sizes = (sequences, kv_length, heads, kv_heads, d_qk, d_v, queries, window, used)
    columns = np.broadcast_arrays(*(np.asarray(size, np.float64) for size in sizes))
    work = _work(parameters, kv_token_bytes, element_bytes, *columns)
    core_s, bound_by_memory = _core_s(chip, parameters, work, tensor_family)
    rows_s = work.heads * parameters.row_cycles / (work.sms * chip.peak_clock_hz)
    time_s = parameters.launch_s + core_s + rows_s
    time_s = time_s + conversion_s(
        chip, parameters.convert_s, parameters.convert_bytes_per_clock, work.stored_bytes, work.sms
    )
    index = np.where(2 * parameters.launch_s > time_s, 2, bound_by_memory)
    return KernelTime(*np.broadcast_arrays(time_s, index))


def features(chip: ChipSpec, parameters: DecodeAttentionParameters, **shape: Any) -> Floats:
    """Return (rows, 9) where decodes lie; keywords as of `decode_attention_time_s`."""
    price_s = decode_attention_time_s(chip, parameters, **shape).time_s
    heads, kv_heads = (np.asarray(shape[name], np.float64) for name in ("heads", "kv_heads"))
    seen = np.minimum(shape["kv_length"], shape.get("window", np.inf))
    sizes = (
        shape["sequences"], shape["kv_length"], kv_heads, heads / kv_heads,
        shape.get("queries", 1.0), seen,
    )  # fmt: skip
    return octaves(price_s, decode_attention_work(**shape), *sizes)


def _work(
    parameters: DecodeAttentionParameters,
    kv_token_bytes: npt.ArrayLike | None,
    element_bytes: float,
    sequences: Floats,
    kv_length: Floats,
    heads: Floats,
    kv_heads: Floats,
    d_qk: Floats,
    d_v: Floats,
    queries: Floats,
    window: Floats,
    sms: Floats,
) -> _Work:
    stored = kv_heads * (d_qk + d_v) * element_bytes
    stored = stored if kv_token_bytes is None else np.asarray(kv_token_bytes, np.float64)
    read = stored if parameters.convert_bytes_per_clock is None else CONVERTED * stored
    keys = np.minimum(kv_length, window + queries - 1)
    rows = queries * heads / kv_heads
    all_heads = sequences * queries * heads
    return _Work(
        units=sequences * kv_heads * np.ceil(rows / parameters.block_rows),
        rows=rows,
        keys=keys,
        depth=d_qk + d_v,
        kv_bytes=read / kv_heads,
        heads=all_heads,
        outputs=all_heads * d_v,
        moved_bytes=sequences * keys * read + all_heads * (d_qk + d_v) * element_bytes,
        stored_bytes=sequences * kv_length * stored,
        sms=sms,
    )


def _core_s(
    chip: ChipSpec, parameters: DecodeAttentionParameters, work: _Work, tensor_family: str
) -> tuple[Floats, Mask]:
    """Return the time with the best number of parts, and whether memory is most of it."""
    count = parts(work.units.ndim)
    blocks = np.ceil(np.ceil(work.keys / parameters.block_keys) / count)
    lam, waves = parameters.wave_quantisation, count * work.units / work.sms
    waves = lam * np.ceil(waves) + (1 - lam) * np.maximum(1.0, waves)
    c_block = _block_cycles(chip, parameters, work, tensor_family)
    units_s = waves * (blocks * c_block + parameters.unit_overhead_cycles) / chip.peak_clock_hz
    memory_s = work.moved_bytes / (parameters.hbm_efficiency * chip.hbm_bytes_per_s)
    memory_s = np.broadcast_to(memory_s, units_s.shape)
    total_s = smooth_maximum(parameters.overlap_exponent, units_s, memory_s)
    total_s = total_s + combine_s(
        chip, parameters.split_s, parameters.l2_bytes_per_clock, count, work.outputs, work.sms
    )
    fits = (count == 1) | (count * work.units <= work.sms)
    best = np.argmin(np.where(fits, total_s, np.inf), axis=0)[None]
    by_memory = np.take_along_axis(memory_s > units_s, best, axis=0)[0]
    return np.take_along_axis(total_s, best, axis=0)[0], by_memory


def _block_cycles(
    chip: ChipSpec, parameters: DecodeAttentionParameters, work: _Work, tensor_family: str
) -> Floats:
    rate = chip.flops_per_clock_per_sm(tensor_family) * parameters.tensor_efficiency
    whole = chip.mma_rows * np.ceil(work.rows / chip.mma_rows)
    in_use = np.minimum(whole, parameters.block_rows)
    c_mma = 2 * in_use * parameters.block_keys * work.depth / rate
    c_load = parameters.block_keys * work.kv_bytes / parameters.sm_bytes_per_clock
    return smooth_maximum(4.0, c_mma, c_load) + parameters.block_overhead_cycles
