"""AIConfigurator `mla_generation`: the core of MLA for one new token of each sequence."""

from calibration.read.mla_shapes import decode_shape, suffix
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "mla_dtype", "kv_cache_dtype")
COLUMNS = frozenset((*WORDS, "num_heads", "tp_size", "batch_size", "kv_len", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), mla"


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of a table; `kv_len` counts the new token too.

    Raises:
        CalibrationError: a chip or a format that is unknown, or no time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        cache = part.words["kv_cache_dtype"]
        heads, batch, kv_len = part.sizes("num_heads", "batch_size", "kv_len")
        found.append(
            KernelRows(
                setting=part.setting(),
                kind="decode_attention",
                family="mla_decode" + suffix(part.words["mla_dtype"], cache),
                shape=decode_shape(heads, batch, kv_len, cache),
                time_s=part.seconds(),
                site=sites(heads, batch, kv_len),
                size=batch * kv_len,
                source=source,
            )
        )
    return found
