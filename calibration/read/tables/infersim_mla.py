"""InferSim `infersim_mla`: MLA of 128 heads on H800 and H20, FlashMLA decoding, FA3 prefill.

Prompts are single sequences of expanded keys (alibaba/InferSim @f2293dab, `mfu/mfu.py`: the files
are named by heads and by 128-64, the parts of an expanded key).
"""

import numpy as np

from calibration.read.mla_shapes import decode_shape, prefill_shape, suffix
from calibration.read.settings import Columns, Part, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, Setting, sites
from hwmodels.errors import CalibrationError

WORDS = ("system", "phase", "dtype", "kv_dtype")
COLUMNS = frozenset((*WORDS, "batch_size", "kv_len", "latency_us", "mfu"))

SOURCE = "Alibaba InferSim bench_data (alibaba/InferSim @f2293dab)"
HEADS = 128.0
VERSION = "infersim-f2293dab"
FORMATS = {"bf16": "bfloat16", "fp8": "fp8"}


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of a table.

    Raises:
        CalibrationError: a chip, a phase or a format that is unknown, or no time.
    """
    return [_rows(part) for part in parts(columns, WORDS, source)]


def _rows(part: Part) -> KernelRows:
    phase, compute, cache = part.words["phase"], part.words["dtype"], part.words["kv_dtype"]
    cache = FORMATS.get(cache, cache)
    batch, kv_len = part.sizes("batch_size", "kv_len")
    heads = np.full(len(batch), HEADS)
    if phase == "decode":
        library, kind = "flashmla", "decode_attention"
        shape = decode_shape(heads, batch, kv_len, cache)
    elif phase == "prefill":
        library, kind = "flash-attention-3", "attention"
        batch = np.ones(len(batch))
        shape = prefill_shape(library, heads, batch, kv_len, np.zeros(len(batch)), cache)
    else:
        raise CalibrationError(f"{part.source}: phase {phase!r}: must be decode or prefill")
    return KernelRows(
        setting=Setting(part.chip(), library, VERSION),
        kind=kind,
        family=f"mla_{phase}" + suffix(compute, cache),
        shape=shape,
        time_s=part.seconds("latency_us"),
        site=sites(batch, kv_len),
        size=batch * kv_len,
        source=part.source,
    )
