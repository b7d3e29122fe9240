"""Which cost model of `hwmodels.costs` prices which kernel, and the shapes of rows in its terms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.fit.constants import GEMM_RANGES, LAUNCH_S
from calibration.measure.measurement import Measurement, shape_of, sizes_of
from hwmodels.arrays import Floats
from hwmodels.chip import ChipSpec
from hwmodels.costs import (
    AttentionParameters,
    GemmParameters,
    MemoryParameters,
    Parameters,
    kernel_time_s,
)
from hwmodels.errors import CalibrationError

Bounds = Mapping[str, tuple[float, float]]

D_QK, D_V = 192, 128
"""Elements of a head's query and key, and of its value, in DeepSeek-V3's training attention."""


@dataclass(frozen=True, slots=True)
class GemmFormat:
    """Number formats of a product: key of `ChipSpec.tensor`, bytes of operands, bytes moved per
    element of C.
    """

    tensor_family: str
    element_bytes: float
    output_bytes: float


FORMATS = {
    "bf16_gemm": GemmFormat("bf16", 2, 2),
    "fp8_gemm": GemmFormat("fp8", 1, 2),
    "grouped_gemm": GemmFormat("fp8", 1, 2),
    "fp8_wgrad": GemmFormat("fp8", 1, 8),
}
ATTENTION = {"mla_prefill": False, "mla_prefill_backward": True}
"""Kernels of training attention, and whether they are the backward pass."""

NO_MODEL = {
    "mla_decode": "no cost model prices attention of one query over a cache",
    "occupy": "it holds SMs for others",
    "probe_launch": "it is launches and nothing else",
    "probe_tensor_rate": "it is one rate and nothing else",
}
"""Kernels that no function of `hwmodels.costs` prices, and why."""

_PROMOTION = {"promotion_cycles": (0.001, 4.0)}
_ATTENTION = {
    "launch_s": LAUNCH_S,
    "tensor_efficiency": (0.05, 1.09),
    "unit_overhead_cycles": (1.0, 20000.0),
}
_MEMORY = {"launch_s": LAUNCH_S, "hbm_efficiency": (0.01, 1.0)}
_PER_SM = {"sm_bytes_per_clock": (0.5, 256.0)}


@dataclass(frozen=True, slots=True)
class CostModel:
    """The cost model of one kernel.

    Attributes:
        name: of the module in `hwmodels.costs`.
        start: constants, of which the free ones are fitted within their bounds.
    """

    kernel: str
    name: str
    start: Parameters
    free: Bounds

    def log_error(
        self, chip: ChipSpec, parameters: Parameters, rows: Sequence[Measurement]
    ) -> Floats:
        """(rows,) of log(price / measured time)."""
        sms = np.array([row.sms for row in rows], np.float64)
        time_s = np.array([row.time_s for row in rows], np.float64)
        priced = kernel_time_s(chip, parameters, shape_columns(self.kernel, rows), sms=sms)
        return np.asarray(np.log(priced.time_s / time_s))


def cost_model(kernel: str, chip: ChipSpec, *, few_sms: bool) -> CostModel:
    """Return the model of a kernel that is not in `NO_MODEL`.

    Products of ours have the tile that is fastest among the candidates, do not split k and do not
    swap their operands. Where CUDA cores promote FP8 sums, what that costs is a constant of its
    own, told from the tensor core's efficiency by how it grows with the tile and by the start.

    Args:
        few_sms: whether rows on part of the SMs show what one of them moves.
    """
    if kernel in FORMATS:
        family = FORMATS[kernel].tensor_family
        promotes = family == "fp8" and chip.promotions > 0
        start = GemmParameters(
            launch_s=2e-6, wave_quantisation=0.5, promotion_cycles=1.0 if promotes else 0.0
        )
        return CostModel(kernel, "gemm", start, GEMM_RANGES | (_PROMOTION if promotes else {}))
    if kernel in ATTENTION:
        plain = AttentionParameters(
            tensor_efficiency=0.6, unit_overhead_cycles=1000.0, launch_s=2e-6
        )
        return CostModel(kernel, "attention", plain, _ATTENTION)
    streaming = MemoryParameters(
        hbm_efficiency=0.8, launch_s=2e-6, sm_bytes_per_clock=32.0 if few_sms else None
    )
    return CostModel(kernel, "memory_op", streaming, _MEMORY | (_PER_SM if few_sms else {}))


def shape_columns(kernel: str, rows: Sequence[Measurement]) -> dict[str, Any]:
    """Return the shapes of rows as the keywords of their cost function.

    Raises:
        CalibrationError: a shape lacks something, or holds no numbers.
    """
    if kernel in FORMATS:
        columns = np.array([_product(row) for row in rows]).T
        how = FORMATS[kernel]
        return {
            **dict(zip(("m", "n", "k", "groups"), columns, strict=True)),
            "tensor_family": how.tensor_family,
            "element_bytes": how.element_bytes,
            "output_bytes": how.output_bytes,
        }
    if kernel in ATTENTION:
        batch, length, heads = np.array(
            [sizes_of(row, "batch", "length", "heads") for row in rows]
        ).T
        return {
            "sequences": batch, "length": length, "heads": heads, "kv_heads": heads,
            "d_qk": D_QK, "d_v": D_V, "backward": ATTENTION[kernel],
        }  # fmt: skip
    return {"moved_bytes": np.array([row.bytes for row in rows], np.float64)}


def _product(row: Measurement) -> tuple[float, ...]:
    """Return m, n, k and groups as `gemm_time_s` counts them.

    Experts without rows are no group; the weight gradient of one without tokens is one all the
    same, for it is read and written.
    """
    if row.kernel == "grouped_gemm":
        counts, (n, k) = _counts(row), sizes_of(row, "n", "k")
        return sum(counts), n, k, sum(count > 0 for count in counts)
    if row.kernel == "fp8_wgrad":
        counts, (m, n) = _counts(row), sizes_of(row, "m", "n")
        return m * len(counts), n, sum(counts) / len(counts), len(counts)
    return (*sizes_of(row, "m", "n", "k"), 1.0)


def _counts(row: Measurement) -> list[float]:
    counts = shape_of(row.shape, row.kernel).get("counts")
    if (
        not isinstance(counts, list)
        or not all(isinstance(c, int) for c in counts)
        or not any(counts)
    ):
        raise CalibrationError(f"{row.kernel} {row.shape}: counts must be whole numbers, not all 0")
    return [float(count) for count in counts]
