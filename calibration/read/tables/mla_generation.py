"""AIConfigurator `mla_generation`: the core of MLA for one new token of each sequence."""

from calibration.read.mla_shapes import decode_shape, suffix
from calibration.read.settings import MS, parts, seconds
from calibration.read.tables import Columns
from calibration.rows import KernelRows, sites

WORDS = ("system", "framework", "fw_version", "mla_dtype", "kv_cache_dtype")
COLUMNS = frozenset((*WORDS, "num_heads", "tp_size", "batch_size", "kv_len", "latency_ms"))

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), mla"


def rows(columns: Columns, source: str) -> list[KernelRows]:
    """Return the kernels of a table; `kv_len` counts the new token too.

    Raises:
        CalibrationError: a chip or a format that is unknown, or no time.
    """
    found = []
    for part in parts(columns, WORDS):
        cache = part.words["kv_cache_dtype"]
        heads, batch, kv_len = (
            part.numbers[name] for name in ("num_heads", "batch_size", "kv_len")
        )
        found.append(
            KernelRows(
                setting=part.setting(source),
                kind="decode_attention",
                family="mla_decode" + suffix(part.words["mla_dtype"], cache),
                shape=decode_shape(heads, batch, kv_len, cache),
                time_s=seconds(part.numbers["latency_ms"], MS, source),
                site=sites(heads, batch, kv_len),
                size=batch * kv_len,
                source=source,
            )
        )
    return found
