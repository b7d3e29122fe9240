"""AIConfigurator `mla_context`: the core of MLA over prompts, projections left out."""

from calibration.read.mla_shapes import prefill_shape, suffix
from calibration.read.settings import WHERE, Columns, parts
from calibration.read.tables import Rows
from calibration.rows import KernelRows, sites

WORDS = (*WHERE, "mla_dtype", "kv_cache_dtype")
COLUMNS = frozenset(
    (*WORDS, "num_heads", "tp_size", "batch_size", "isl", "step", "latency_ms")
)  # fmt: skip

SOURCE = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5), mla"


def rows(columns: Columns, source: str) -> Rows:
    """Return the kernels of a table; `step` counts tokens cached before the `isl` new ones.

    Raises:
        CalibrationError: a chip, a library or a format that is unknown, or no time.
    """
    found: Rows = []
    for part in parts(columns, WORDS, source):
        setting, cache = part.setting(), part.words["kv_cache_dtype"]
        heads, batch, isl = part.sizes("num_heads", "batch_size", "isl")
        (step,) = part.sizes("step", least=0)
        found.append(
            KernelRows(
                setting=setting,
                kind="attention",
                family="mla_prefill" + suffix(part.words["mla_dtype"], cache),
                shape=prefill_shape(setting.library, heads, batch, isl, step, cache),
                time_s=part.seconds(),
                site=sites(heads, batch, isl, step),
                size=batch * isl,
                source=source,
            )
        )
    return found
