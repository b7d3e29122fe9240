"""Read public tables of timed DeepEP exchanges: dispatch and combine, both modes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.read.parquet import read_columns
from hwmodels.arrays import Floats, Ints
from hwmodels.costs.channels import ExchangeShape
from hwmodels.costs.exchange import Direction
from hwmodels.costs.low_latency import LowLatencyShape
from hwmodels.errors import CalibrationError
from hwmodels.formats import FORMATS
from workloads.blocks.moe import MoESpec
from workloads.routing import expected_copies

WIRE = {"dispatch": FORMATS["fp8_1x128"], "combine": FORMATS["bf16"]}
GPUS_PER_NODE = 8
"""Of the tables, the GB200's included: a group of eight in its NVLink domain counts as a node."""
ROUTED_NODES_MAX = 4
"""Of DeepEP's own test, which the tables ran: as many groups as nodes, the best four taken."""

_LABELS = ("system", "fw_version")
_SHAPE = ("node_num", "hidden_size", "num_topk", "num_experts", "num_token")


@dataclass(frozen=True, slots=True, eq=False)
class DeepEpRows:
    """Timed exchanges as columns.

    Attributes:
        system, version: labels of the table.
        nodes, hidden, top_k, experts, tokens: the shape; tokens of one GPU.
        sms: by direction, given to the kernels; empty in low-latency mode.
        time_s: by direction, of the transfer.
        notify_s: by direction, of the kernel before it, waits included; empty in low-latency mode.
    """

    system: npt.NDArray[np.str_]
    version: npt.NDArray[np.str_]
    nodes: Ints
    hidden: Ints
    top_k: Ints
    experts: Ints
    tokens: Ints
    sms: Mapping[Direction, Ints] = field(default_factory=dict)
    time_s: Mapping[Direction, Floats] = field(default_factory=dict)
    notify_s: Mapping[Direction, Floats] = field(default_factory=dict)

    def take(self, index: Any) -> "DeepEpRows":
        """Return the rows at `index` (positions or a mask)."""
        return DeepEpRows(
            system=self.system[index],
            version=self.version[index],
            nodes=self.nodes[index],
            hidden=self.hidden[index],
            top_k=self.top_k[index],
            experts=self.experts[index],
            tokens=self.tokens[index],
            sms={name: column[index] for name, column in self.sms.items()},
            time_s={name: column[index] for name, column in self.time_s.items()},
            notify_s={name: column[index] for name, column in self.notify_s.items()},
        )

    def of(self, system: str, version: str) -> "DeepEpRows":
        """Return the rows of one system and library version."""
        return self.take((self.system == system) & (self.version == version))

    @property
    def shape_number(self) -> Ints:
        """(rows,) the same number for rows of the same shape, whatever their SMs."""
        columns = (self.nodes, self.hidden, self.top_k, self.experts, self.tokens)
        return np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)[1].ravel()

    def normal(self, direction: Direction) -> ExchangeShape:
        """Return the shapes of a normal-mode exchange, copies from DeepEP's own routing."""
        keys = list(zip(self.experts, self.top_k, self.nodes, strict=True))
        copies = {key: _copies(*map(int, key)) for key in set(keys)}
        node_copies, gpu_copies = np.array([copies[key] for key in keys], np.float64).T
        return ExchangeShape.of(
            tokens=self.tokens,
            token_bytes=self._token_bytes(direction),
            node_copies=node_copies,
            gpu_copies=gpu_copies,
            nodes=self.nodes,
            gpus_per_node=GPUS_PER_NODE,
        )

    def low_latency(self, direction: Direction, chip_sms: int) -> LowLatencyShape:
        """Return the shapes of a low-latency exchange on a chip of `chip_sms` SMs."""
        return LowLatencyShape.of(
            tokens=self.tokens,
            token_bytes=self._token_bytes(direction),
            top_k=self.top_k,
            experts=self.experts,
            nodes=self.nodes,
            gpus_per_node=GPUS_PER_NODE,
            sms=chip_sms,
        )

    def _token_bytes(self, direction: Direction) -> Floats:
        return np.array([WIRE[direction].bytes_of(int(h)) for h in self.hidden], np.float64)


def _copies(experts: int, top_k: int, nodes: int) -> tuple[float, float]:
    moe = MoESpec(routed_experts=experts, top_k=top_k, expert_width=1, group_score="max")
    limit = min(nodes, ROUTED_NODES_MAX)
    found = expected_copies(moe, GPUS_PER_NODE * nodes, GPUS_PER_NODE, limit)
    return found.remote_nodes_per_token, found.gpus_per_token


def read_normal(path: Path) -> DeepEpRows:
    """Read a table of normal-mode rows: transfers, and `notify` before them apart.

    Raises:
        MachineError: reading parquet needs pyarrow.
        CalibrationError: the file cannot be read, lacks a column or holds no usable row.
    """
    return _read(path, "transmit_us", "sms", "notify_us")


def read_low_latency(path: Path) -> DeepEpRows:
    """Read a table of low-latency rows; raises as `read_normal`."""
    return _read(path, "avg_t_us")


def _read(path: Path, time: str, sms: str = "", notify: str = "") -> DeepEpRows:
    """Read a table whose columns of a direction are `dispatch_` or `combine_` and these names."""
    directions: tuple[Direction, ...] = ("dispatch", "combine")
    timed = {name: f"{name}_{time}" for name in directions}
    counted = {name: f"{name}_{sms}" for name in directions if sms}
    notified = {name: f"{name}_{notify}" for name in directions if notify}
    wanted = [*_LABELS, *_SHAPE, *timed.values(), *counted.values(), *notified.values()]
    table = read_columns(path, wanted)
    whole = {name: np.array(table[name], np.int64) for name in _SHAPE}
    rows = DeepEpRows(
        system=np.array(table["system"], np.str_),
        version=np.array(table["fw_version"], np.str_),
        nodes=whole["node_num"],
        hidden=whole["hidden_size"],
        top_k=whole["num_topk"],
        experts=whole["num_experts"],
        tokens=whole["num_token"],
        sms={name: np.array(table[column], np.int64) for name, column in counted.items()},
        time_s={name: np.array(table[column]) * 1e-6 for name, column in timed.items()},
        notify_s={name: np.array(table[column]) * 1e-6 for name, column in notified.items()},
    )
    times = np.concatenate(list(rows.time_s.values()))
    if not times.size or not all(math.isfinite(t) and t > 0 for t in times):
        raise CalibrationError(f"{path}: no usable rows")
    return rows
