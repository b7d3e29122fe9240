"""The libraries `deepep-*` of measured systems, from public tables of timed DeepEP exchanges.

Ten constants a system describe normal mode inside one node, both directions, all SM counts and
shapes; seven or eight describe low-latency mode. One more Hopper cluster was timed on 1 to 8 nodes
with an older library: it takes what its few rows cannot tell from `deepep-h200` and `deepep-h800`,
and adds what channels do between nodes, a slow NIC that its group of 8 nodes had, and `notify`: a
straight line over doublings of nodes through the medians of 2, 4 and 8.

`library_texts` writes the presets that ship; running it again on the same files gives the same
texts. Errors are printed of all rows in sample, and of shapes left out of the fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibration.fit.exchanges import (
    Constants,
    TableFit,
    fit_table,
    low_latency_errors,
    nested,
    normal_errors,
)
from calibration.fit.profile_document import ProfileDocument, Sourced
from calibration.read.deepep_rows import DeepEpRows, read_low_latency, read_normal
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.errors import CalibrationError
from hwmodels.library import LIBRARIES

TABLES = "NVIDIA AIConfigurator tables (ai-dynamo/aiconfigurator @095f58a5)"
HEADER_BYTES = 16.0
"""Of each dispatched copy in low-latency mode (DeepEP, the source index as an int4)."""
NORMAL_START: Constants = {
    "nvlink_bytes_per_s": 290e9,
    "dispatch_work.latency_s": 27e-6,
    "dispatch_work.token_s": 0.2e-6,
    "dispatch_work.copy_s": 0.2e-6,
    "dispatch_work.copy_bytes_per_s": 7e9,
    "combine_work.latency_s": 25e-6,
    "combine_work.fill_bytes_per_s": 0.7e9,
    "combine_work.token_bytes_per_s": 20e9,
    "combine_work.copy_s": 0.2e-6,
    "combine_work.copy_bytes_per_s": 10e9,
}
LOW_LATENCY_START: Constants = {
    "dispatch.latency_s": 8e-6,
    "dispatch.expert_s": 12e-9,
    "dispatch.token_s": 2e-6,
    "dispatch.nvlink_bytes_per_s": 270e9,
    "combine.latency_s": 9e-6,
    "combine.sum_bytes_per_s": 40e9,
    "combine.nvlink_bytes_per_s": 230e9,
}
BLACKWELL_START: Constants = {**LOW_LATENCY_START, "combine.expert_s": 5e-9}
"""Flags of combine take their time on Blackwell; on Hopper this constant fits to nothing."""
CLUSTER_START: Constants = {
    "dispatch_work.latency_s": 37e-6,
    "dispatch_forwarding.latency_s": 25e-6,
    "dispatch_forwarding.node_latency_s": 10e-6,
    "dispatch_forwarding.token_bytes_per_s": 3e9,
    "dispatch_forwarding.fill_tokens": 100.0,
    "combine_work.latency_s": 30e-6,
    "combine_forwarding.latency_s": 45e-6,
    "combine_forwarding.node_latency_s": 7e-6,
    "combine_forwarding.token_bytes_per_s": 2.4e9,
    "combine_forwarding.fill_tokens": 100.0,
    "slow_nic.bytes_per_s": 40e9,
}
"""The slow NIC starts nearly as fast as the others: without rows that show it none is slow."""
CLUSTER_LOW_LATENCY_START: Constants = {
    "dispatch.latency_s": 12e-6,
    "dispatch.node_latency_s": 5e-6,
    "dispatch.nic_bytes_per_s": 48e9,
    "dispatch.nvlink_bytes_per_s": 250e9,
    "combine.latency_s": 10e-6,
    "combine.node_latency_s": 7e-6,
    "combine.nic_bytes_per_s": 46e9,
    "combine.nvlink_bytes_per_s": 215e9,
}
PUBLISHED = "deepep-h800"
"""The library that says what rows of the cluster do not: its NICs are the same, to one per cent in
low-latency mode, and no row between nodes is long enough to tell their rate."""
SLOW_NIC: Constants = {"nodes": 8, "buffer_tokens": 512}
FROM_PUBLISHED = (
    "dispatch_nic_bytes_per_s",
    "combine_nic_bytes_per_s",
    "forwarding_nvlink_bytes_per_s",
)
WAITING_TOKENS = 10_000
"""Tokens above which `notify` on all nodes is waiting for the slow NIC, most of it."""

FIXED_SOURCES = {
    "header_bytes": "DeepEP @de8cfca: an int4 goes with each copy",
    "dispatch_nic_bytes_per_s": f"preset {PUBLISHED}: in low-latency mode its NICs are as fast",
    "combine_nic_bytes_per_s": f"preset {PUBLISHED}: in low-latency mode its NICs are as fast",
    "forwarding_nvlink_bytes_per_s": f"preset {PUBLISHED}: no faster where NVLink is, as two nodes "
    "of H20 and of H200 reach 38 to 45 GB/s logical, H800 43 (DeepEP issues 137, 493)",
    "crowding.peers": f"preset {PUBLISHED}, as its rates",
    "crowding.rate_exponent": f"preset {PUBLISHED}, as its rates",
    "slow_nic.nodes": f"{TABLES}: seen on 8 nodes alone",
    "slow_nic.buffer_tokens": f"{TABLES}, collector/deep_collector/test_internode.py, which ran: "
    "nvl_buffer_size",
}
SLOW = (
    "one NIC, not all: on 8 nodes and 16,384 tokens both directions take 2.6 times what NICs do "
    "elsewhere, with 4 SMs as with 24, and what combine takes less with more SMs notify takes more"
)
NOTIFY = (
    "DeepEP normal mode, SGLang 0.5.6.post2: medians of the notify columns on 2, 4 and 8 nodes but "
    "for 16,384 tokens, a straight line over doublings; on 8 nodes 2 and 4 alone would say 76 us "
    "for dispatch (measured 73) and 73 us for combine (84)"
)
_COMMENT = """DeepEP as timed on one system. Written by calibration.fit.deepep_table from public
tables; do not edit, refit."""


@dataclass(frozen=True, slots=True)
class System:
    """One system of the tables.

    Attributes:
        name: of the preset.
        label, version: of its rows.
        chip: preset of its GPU.
        description: one sentence.
        base: of a cluster, the system whose constants it takes where it cannot tell.
    """

    name: str
    label: str
    version: str
    chip: str
    description: str
    base: str = ""


def _inside_one_node(name: str, label: str, chip: str) -> System:
    said = f"DeepEP on eight {chip.upper()} of one NVLink domain, timed alone."
    return System(name, label, "0.5.12", chip, said)


SYSTEMS = (
    _inside_one_node("deepep-h100", "h100_sxm", "h100"),
    _inside_one_node("deepep-h200", "h200_sxm", "h200"),
    _inside_one_node("deepep-b200", "b200_sxm", "b200"),
    _inside_one_node("deepep-gb200", "gb200", "gb200"),
    System(
        "deepep-hopper-cluster",
        "h200_sxm",
        "0.5.6.post2",
        "h200",
        "DeepEP on 1, 2, 4 and 8 nodes of one Hopper cluster, timed alone.",
        base="deepep-h200",
    ),
)


@dataclass(frozen=True, slots=True)
class LibraryFit:
    """One system's constants in both modes; what it takes from its base is in `*_fixed`.

    `spans` has which rows of normal mode are between nodes, `notify` the constants of the kernel
    before those, by table, if there are any.
    """

    system: System
    normal: TableFit
    low_latency: TableFit
    normal_fixed: Constants
    low_latency_fixed: Constants
    spans: npt.NDArray[np.bool_]
    notify: Mapping[str, Constants] = field(default_factory=dict)


def fit_libraries(normal: Path, low_latency: Path) -> tuple[LibraryFit, ...]:
    """Fit every system of `SYSTEMS`.

    Args:
        normal, low_latency: parquet tables of timed exchanges in the two modes.

    Raises:
        MachineError, CalibrationError: see `calibration.read.deepep_rows.read_normal`; or a system
            has no rows.
    """
    slow, quick = read_normal(normal), read_low_latency(low_latency)
    found: dict[str, LibraryFit] = {}
    for system in SYSTEMS:
        rows = slow.of(system.label, system.version), quick.of(system.label, system.version)
        if not all(len(each.tokens) for each in rows):
            raise CalibrationError(f"{normal}: no rows of {system.label} {system.version}")
        found[system.name] = _fit(system, *rows, found.get(system.base))
    return tuple(found.values())


def library_texts(fits: Sequence[LibraryFit]) -> dict[str, str]:
    """Return the presets as TOML, by name."""
    return {fit.system.name: _text(fit) for fit in fits}


def score_lines(fits: Sequence[LibraryFit]) -> list[str]:
    """Return the errors of each system and mode, a line each, all rows in sample and held out."""
    heads = (("in sample", "shapes held out"), ("median   p90   bias",) * 2)
    lines = [f"{'':48}{''.join(f'{head:>24}' for head in row)}" for row in heads]
    totals: dict[str, list[TableFit]] = {"normal": [], "low latency": []}
    for fit in fits:
        modes = {"normal": fit.normal, "low latency": fit.low_latency}
        for mode, table in modes.items():
            totals[mode].append(table)
            lines += _both_ways(f"{fit.system.name} {mode}", table)
        if fit.spans.any():
            lines += _both_ways(f"{fit.system.name} between nodes", fit.normal.of(fit.spans))
    for mode, tables in totals.items():
        sides = ([table.in_sample for table in tables], [table.held_out for table in tables])
        lines.append(_line(f"all {mode}", *map(np.concatenate, sides)))
    return lines


def _both_ways(where: str, table: TableFit) -> list[str]:
    half = len(table.in_sample) // 2
    return [
        _line(f"{where} {way}", table.in_sample[part], table.held_out[part])
        for way, part in (("dispatch", slice(half)), ("combine", slice(half, None)))
    ]


def _line(where: str, *errors: Floats) -> str:
    shown = (
        f"{np.median(np.abs(each)):10.1%}{np.percentile(np.abs(each), 90):7.1%}"
        f"{np.median(each):+7.1%}"
        for each in errors
    )
    return f"{where:48}{''.join(shown)}"


def _fit(
    system: System, normal: DeepEpRows, low_latency: DeepEpRows, base: LibraryFit | None
) -> LibraryFit:
    chip = CHIPS.load(system.chip)
    sms = chip.sms
    start = BLACKWELL_START if chip.generation == "blackwell" else LOW_LATENCY_START
    header = {"header_bytes": HEADER_BYTES}
    spans = normal.nodes > 1
    if base is None:
        return LibraryFit(
            system,
            fit_table(normal_errors({}), NORMAL_START, normal),
            fit_table(low_latency_errors(header, sms), start, low_latency),
            {},
            header,
            spans,
        )
    fixed = _without(base.normal.constants, CLUSTER_START) | _published()
    fixed_quick = header | _without(base.low_latency.constants, CLUSTER_LOW_LATENCY_START)
    waits = (normal.nodes >= SLOW_NIC["nodes"]) & (normal.tokens > WAITING_TOKENS)
    return LibraryFit(
        system,
        fit_table(normal_errors(fixed), CLUSTER_START, normal),
        fit_table(low_latency_errors(fixed_quick, sms), CLUSTER_LOW_LATENCY_START, low_latency),
        fixed,
        fixed_quick,
        spans,
        _notify(normal.take(spans & ~waits)),
    )


def _published() -> dict[str, float]:
    """Return the constants between nodes that are not from the table."""
    rates = LIBRARIES.load(PUBLISHED).exchange
    assert rates is not None, "the preset is one of normal mode"
    found = {f"slow_nic.{name}": value for name, value in SLOW_NIC.items()}
    for name in FROM_PUBLISHED:
        found[name] = getattr(rates, name)
    assert rates.crowding is not None, "its rates hold for one number of peers"
    return found | {f"crowding.{name}": value for name, value in rates.crowding}


def _notify(rows: DeepEpRows) -> dict[str, Constants]:
    """Return the constants of `notify`, from rows between nodes in which nobody waits."""
    constants: dict[str, Constants] = {}
    nodes = np.unique(rows.nodes)
    for name in rows.notify_s:
        medians_s = [np.median(rows.notify_s[name][rows.nodes == count]) for count in nodes]
        slope, level = np.polyfit(np.log2(nodes) - 1, medians_s, 1)
        found = {"latency_s": float(level), "node_latency_s": float(slope)}
        constants[f"{name}_notify"] = found
    return constants


def _without(constants: Constants, free: Constants) -> dict[str, float]:
    return {path: value for path, value in constants.items() if path not in free}


def _text(fit: LibraryFit) -> str:
    system = fit.system
    chip = CHIPS.load(system.chip)
    document = ProfileDocument(
        _COMMENT,
        {
            "version": f"SGLang {system.version}",
            "description": system.description,
            "link_nvlink_bytes_per_s": Sourced(
                chip.nvlink_bytes_per_s, f"datasheet of {chip.name}, see the chip's preset"
            ),
        },
    )
    _add(document, "exchange", "normal mode", fit.normal, fit.normal_fixed, system, chip)
    _add(
        document,
        "low_latency",
        "low-latency mode",
        fit.low_latency,
        fit.low_latency_fixed,
        system,
        chip,
    )
    for name, constants in fit.notify.items():
        document.tables[f"exchange.{name}"] = constants
        document.sources[f"exchange.{name}"] = f"{TABLES}, label {system.label}, {NOTIFY}"
    if system.base:
        document.head = {**document.head, "link_nic_bytes_per_s": 50e9}
        document.assumed["link_nic_bytes_per_s"] = (
            "a 400 Gb/s NIC a GPU: low-latency mode on 8 nodes carries 49 GB/s"
        )
        document.assumed["exchange.slow_nic"] = SLOW
    return document.text()


def _add(
    document: ProfileDocument,
    table: str,
    mode: str,
    fit: TableFit,
    fixed: Constants,
    system: System,
    chip: ChipSpec,
) -> None:
    """Add the constants of one mode, each with its source."""
    inside, outside = (np.median(np.abs(each)) for each in (fit.in_sample, fit.held_out))
    where = f"{TABLES}, DeepEP {mode}, SGLang {system.version}, label {system.label}"
    document.sources[table] = (
        f"{where}: fitted by calibration.fit.deepep_table, median |error| {inside:.0%}, of shapes "
        f"held out {outside:.0%}"
    )
    for path in fixed:
        source = FIXED_SOURCES.get(path, f"preset {system.base}: too few rows to tell")
        document.sources[f"{table}.{path}"] = source
    values = nested({**fixed, **fit.constants})
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    document.tables[table] = plain
    for name, value in values.items():
        if isinstance(value, dict):
            document.tables[f"{table}.{name}"] = value
