"""The library `trtllm-alltoall-gb200`: TensorRT-LLM's expert exchange inside GB200 NVL72.

Fitted to the table `alltoall_gb200_trtllm`: kernels timed on 2 to 64 ranks, experts spread as
evenly as can be, so that a token goes to min(top_k, ranks) ranks. Two kinds of kernels: one-sided,
where a rank writes into its peers' memory, and two-sided, where a kernel `prepare` counts first.
One set of constants a kernel serves all formats, ranks and token counts.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from calibration.fit.collective_tables import TABLES
from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.read.collective_rows import Texts
from calibration.read.parquet import read_columns
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.costs.scale_up_exchange import ScaleUpExchangeParameters, scale_up_exchange_s
from hwmodels.errors import CalibrationError, suggestion

NAME = "trtllm-alltoall-gb200"
BYTES_PER_ELEMENT = {"nvfp4": 1 / 2 + 1 / 16, "fp8": 1.0, "bfloat16": 2.0}
"""NVFP4 has an FP8 scale for 16 values; FP8 one scale a tensor, sent apart."""

_COLUMNS = (
    "op_name",
    "kernel_source",
    "moe_dtype",
    "num_tokens",
    "hidden_size",
    "topk",
    "moe_ep_size",
    "fw_version",
    "latency_ms",
)
_KERNELS = {  # (op, source): name, format sent (None: that of the row; "" for next to nothing)
    ("alltoall_prepare", "NVLinkTwoSided"): ("prepare", ""),
    ("alltoall_dispatch", "NVLinkTwoSided"): ("dispatch", None),
    ("alltoall_combine", "NVLinkTwoSided"): ("combine", "bfloat16"),
    ("alltoall_combine_low_precision", "NVLinkTwoSided"): ("combine_low_precision", "nvfp4"),
    ("alltoall_dispatch", "NVLinkOneSided"): ("one_sided_dispatch", None),
    ("alltoall_combine", "NVLinkOneSided"): ("one_sided_combine", "bfloat16"),
}
_START = {"launch_s": 12e-6, "rank_s": 1e-7, "token_s": 1e-8, "wire": 1.3}
_LOW = {"launch_s": 1e-6, "rank_s": 1e-9, "token_s": 1e-11, "wire": 1.0}
_HIGH = {"launch_s": 1e-4, "rank_s": 1e-5, "token_s": 1e-6, "wire": 20.0}
_PULL, _ERROR_SCALE, _FOLDS = 0.02, 0.05, 5


@dataclass(frozen=True, slots=True)
class ExchangeRows:
    """Timed kernels as columns; `kernel` as in the library, `copies` ranks a token goes to."""

    kernel: Texts
    tokens: Floats
    ranks: Floats
    copies: Floats
    token_bytes: Floats
    time_s: Floats
    version: str

    def take(self, index: Any) -> "ExchangeRows":
        """Return the rows at `index` (positions or a mask)."""
        columns = [field.name for field in fields(self) if field.name != "version"]
        return replace(self, **{name: getattr(self, name)[index] for name in columns})


@dataclass(frozen=True, slots=True, eq=False)
class ExchangeFit:
    """Constants by kernel, the rows, (rows,) seconds by them and by fits without a row's shape."""

    kernels: dict[str, ScaleUpExchangeParameters]
    rows: ExchangeRows
    time_s: Floats
    held_out_s: Floats


def read_exchange_table(path: Path) -> ExchangeRows:
    """Read the parquet table.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file cannot be read, or holds a kernel or format not known here.
    """
    table = read_columns(path, _COLUMNS)
    names, sizes = [], []
    for op, source, own in zip(
        table["op_name"], table["kernel_source"], table["moe_dtype"], strict=True
    ):
        if (op, source) not in _KERNELS:
            known = [" ".join(pair) for pair in _KERNELS]
            raise CalibrationError(f"{path}: kernel {op} {source}{suggestion(op, known)}")
        name, sent = _KERNELS[op, source]
        number_format = own if sent is None else sent
        if number_format and number_format not in BYTES_PER_ELEMENT:
            near = suggestion(number_format, BYTES_PER_ELEMENT)
            raise CalibrationError(f"{path}: moe_dtype {number_format}{near}")
        names.append(name)
        sizes.append(BYTES_PER_ELEMENT.get(number_format, 0.0))
    ranks = table["moe_ep_size"].astype(np.float64)
    return ExchangeRows(
        kernel=np.array(names),
        tokens=table["num_tokens"].astype(np.float64),
        ranks=ranks,
        copies=np.minimum(table["topk"].astype(np.float64), ranks),
        token_bytes=np.array(sizes) * table["hidden_size"].astype(np.float64),
        time_s=table["latency_ms"].astype(np.float64) * 1e-3,
        version=", ".join(sorted(set(table["fw_version"].tolist()))),
    )


def fit_exchange_table(path: Path) -> ExchangeFit:
    """Fit every kernel, and predict every row by a fit without its shape (ranks, tokens).

    Raises:
        MachineError, CalibrationError: see `read_exchange_table`.
    """
    rows, chip = read_exchange_table(path), CHIPS.load("gb200")
    shapes = np.unique(rows.ranks * 1e7 + rows.tokens, return_inverse=True)[1]
    fold = np.random.default_rng(0).permutation(shapes.max() + 1)[shapes] % _FOLDS
    kernels, time_s, held_out_s = {}, np.empty(len(fold)), np.empty(len(fold))
    for name in sorted({name for name, _ in _KERNELS.values()} & set(rows.kernel.tolist())):
        is_kernel = rows.kernel == name
        kernels[name] = _fit(rows.take(is_kernel), chip)
        time_s[is_kernel] = exchange_s(kernels[name], rows.take(is_kernel), chip)
        for held in np.unique(fold[is_kernel]):
            out = is_kernel & (fold == held)
            without = _fit(rows.take(is_kernel & (fold != held)), chip)
            held_out_s[out] = exchange_s(without, rows.take(out), chip)
    return ExchangeFit(kernels, rows, time_s, held_out_s)


def exchange_s(parameters: ScaleUpExchangeParameters, rows: ExchangeRows, chip: ChipSpec) -> Floats:
    """Return (rows,) seconds of one kernel."""
    return scale_up_exchange_s(
        parameters,
        rows.tokens,
        rows.ranks,
        rows.copies,
        rows.token_bytes,
        chip.nvlink_bytes_per_s,
    )


def _fit(rows: ExchangeRows, chip: ChipSpec) -> ScaleUpExchangeParameters:
    """Robust fit of logs, with a weak pull to the start for what the rows leave undecided."""
    names = [name for name in _START if name != "wire" or rows.token_bytes.any()]
    origin, low, high = (np.log([table[name] for name in names]) for table in (_START, _LOW, _HIGH))

    def build(position: Floats) -> ScaleUpExchangeParameters:
        costs = dict(zip(names, np.exp(position).tolist(), strict=True))
        wire = costs.pop("wire", None)
        return ScaleUpExchangeParameters(
            **costs, nvlink_efficiency=None if wire is None else 1 / wire
        )

    def residual(position: Floats) -> Floats:
        miss = np.log(exchange_s(build(position), rows, chip) / rows.time_s)
        return np.concatenate([miss, _PULL * (position - origin)])

    result = least_squares(
        residual, origin, bounds=(low, high), loss="soft_l1", f_scale=_ERROR_SCALE
    )
    return build(result.x)


def score_lines(fit: ExchangeFit) -> list[str]:
    """Return median and 90th percentile of |relative error| by kernel."""
    lines = [f"{'kernel':26}{'rows':>6}{'median':>9}{'p90':>8}{'held out':>10}{'p90':>8}"]
    for name in [*fit.kernels, "all"]:
        mask = (fit.rows.kernel == name) | (name == "all")
        inside, outside = (
            np.percentile(np.abs(times[mask] / fit.rows.time_s[mask] - 1), [50, 90])
            for times in (fit.time_s, fit.held_out_s)
        )
        lines.append(
            f"{name:26}{mask.sum():6d}{inside[0]:9.1%}{inside[1]:8.1%}"
            f"{outside[0]:10.1%}{outside[1]:8.1%}"
        )
    return lines


def library_text(fit: ExchangeFit) -> str:
    """Return the preset as TOML."""
    chip = CHIPS.load("gb200")
    document = ProfileDocument(
        "TensorRT-LLM's expert exchange over NVLink of GB200 NVL72. Written by\n"
        "calibration.fit.gb200_alltoall from timed kernels; do not edit, refit.",
        {
            "version": fit.rows.version,
            "description": "TensorRT-LLM all-to-all of tokens, GB200 NVL72, 2 to 64 ranks; "
            "prepare, dispatch and combine are two-sided.",
            "link_nvlink_bytes_per_s": Sourced(
                chip.nvlink_bytes_per_s, "datasheet rate, one direction, as in chip gb200"
            ),
        },
    )
    for name, parameters in fit.kernels.items():
        count = int((fit.rows.kernel == name).sum())
        path = f"scale_up_exchange.{name}"
        document.tables[path] = parameters.model_dump(exclude_none=True)
        document.sources[path] = (
            f"{TABLES}, alltoall, TensorRT-LLM {fit.rows.version}, {count} rows; fitted"
        )
    return document.text()
