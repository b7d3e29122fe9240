"""Timed collectives of one switched node, as columns: the table `collectives_intranode`.

NCCL rows are nccl-tests'; the others are all-reduces of serving frameworks, launched from a CUDA
graph or one by one (eager, where the host is the bottleneck of small ones). A group is what one
library document describes: one framework, one way of launching, versions whose kernels are alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.read.parquet import read_columns
from hwmodels.arrays import Floats, Mask
from hwmodels.errors import CalibrationError

COLUMNS = (
    "system",
    "library",
    "fw_version",
    "op_name",
    "dtype",
    "num_gpus",
    "message_bytes",
    "latency_ms",
)
_KINDS = {"alltoall": "all_to_all"}
_ERAS = {"sglang": "0.5.10", "vllm": "0.14.0"}
"""Last version of the older kernels: a newer one is another library."""

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class CollectiveRows:
    """Columns of equal length.

    Attributes:
        system: chip preset; `library`: `nccl`, `trtllm`, `sglang`, `vllm-eager` ...; `version`.
        kind: as in `hwmodels.costs.protocol`.
        in_network: whether a switch could sum the elements: not if they are 8-bit integers.
        ranks, size_bytes, time_s: by nccl-tests' conventions, seconds.
    """

    system: Texts
    library: Texts
    version: Texts
    kind: Texts
    in_network: Mask
    ranks: Floats
    size_bytes: Floats
    time_s: Floats

    def take(self, index: Any) -> "CollectiveRows":
        """Return the rows at `index` (positions or a mask)."""
        return CollectiveRows(*(getattr(self, field.name)[index] for field in fields(self)))

    def shapes(self) -> npt.NDArray[np.intp]:
        """(rows,) number of each row's shape, (kind, ranks, bytes), in sorted order."""
        names = [
            f"{kind} {p:05.0f} {size:020.0f}"
            for kind, p, size in zip(self.kind, self.ranks, self.size_bytes, strict=True)
        ]
        return np.unique(names, return_inverse=True)[1]

    def medians(self) -> tuple["CollectiveRows", Floats]:
        """Return one row for each shape and kind of element, its time the median; and counts."""
        number = self.shapes() * 2 + self.in_network
        _, first, group, count = np.unique(
            number, return_index=True, return_inverse=True, return_counts=True
        )
        taken = self.take(first)
        for row in range(len(first)):
            taken.time_s[row] = np.median(self.time_s[group == row])
        return taken, count.astype(np.float64)


def read_collective_table(path: Path) -> CollectiveRows:
    """Read the parquet table.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file cannot be read, lacks a column or holds no usable row.
    """
    table = read_columns(path, COLUMNS)
    time_s = table["latency_ms"].astype(np.float64) * 1e-3
    if not time_s.size or not (time_s > 0).all():
        raise CalibrationError(f"{path}: latency_ms must be > 0 in at least one row and all")
    version = table["fw_version"].astype(str)
    return CollectiveRows(
        system=np.char.replace(table["system"].astype(str), "_sxm", ""),
        library=np.array([_group(*pair) for pair in zip(table["library"], version, strict=True)]),
        version=version,
        kind=np.array([_KINDS.get(name, name) for name in table["op_name"]]),
        in_network=table["dtype"] != "int8",
        ranks=table["num_gpus"].astype(np.float64),
        size_bytes=table["message_bytes"].astype(np.float64),
        time_s=time_s,
    )


def groups(rows: CollectiveRows) -> Iterator[tuple[str, str, CollectiveRows]]:
    """Yield (library, system, rows), NCCL first: the others fall back to it."""
    keys = sorted(
        set(zip(rows.library.tolist(), rows.system.tolist(), strict=True)),
        key=lambda key: (key[0] != "nccl", key),
    )
    for library, system in keys:
        yield library, system, rows.take((rows.library == library) & (rows.system == system))


def _group(library: str, version: str) -> str:
    """`custom_allreduce:sglang_eager`, 0.5.9 -> `sglang-0.5.10-eager`."""
    name, _, launch = library.removeprefix("custom_allreduce:").lower().partition("_")
    era = _ERAS.get(name)
    older = era is not None and _numbers(version) <= _numbers(era)
    return name + (f"-{era}" if older else "") + ("-eager" if launch == "eager" else "")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
