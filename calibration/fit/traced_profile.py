"""A kernel profile from the trace of anybody's training: what it shows, and a parent for the rest.

Families whose shapes were recorded are fitted as those of tables are (`calibration.fit.family`);
slowdowns beside communication are the trace's own where its overlap varies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration.fit.interference import Factor
from calibration.fit.profile_document import ProfileDocument
from calibration.fit.table_profile import fit_table_profile
from calibration.fit.traced_kernels import traced_factors, traced_rows
from calibration.read.device_time import DeviceTime
from calibration.read.kernel_classes import PRODUCTS, KernelClass
from calibration.read.torch_trace import TorchTrace
from calibration.rows import KernelRows, Setting
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.errors import CalibrationError, listed
from hwmodels.profile import KernelProfile

LIBRARY, VERSION = "pytorch", "traced"
SITES_MIN = 2
"""Shapes of a family below which nothing is left to judge its fit by, even with a parent."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What a trace shows of its kernels.

    Attributes:
        rows: timed shapes, one entry for each family.
        factors: slowdowns beside transfers, of classes whose overlap varies.
    """

    rows: tuple[KernelRows, ...]
    factors: Mapping[KernelClass, Factor]


def traced(trace: TorchTrace) -> Traced:
    """Return what a trace shows of its kernels.

    Raises:
        CalibrationError: no kernel ran on a device.
    """
    time = DeviceTime.of(trace)
    factors = traced_factors(time)
    setting = Setting(trace.device, LIBRARY, VERSION)
    rows = traced_rows(time, factors, setting, f"the PyTorch profiler trace {trace.path.name}")
    return Traced(tuple(rows), factors)


def traced_chip(trace: TorchTrace, name: str | None) -> ChipSpec:
    """Return the preset of a trace's GPU: the one named, or the one the GPU's name holds.

    Raises:
        UnknownPresetError: no preset has the name given.
        CalibrationError: the GPU has no preset, or the one named has another number of SMs.
    """
    words = trace.device.lower().replace("-", " ").split()
    found = [known for known in CHIPS.names() if known in words]
    if name is None and len(found) != 1:
        known = listed(CHIPS.names())
        device = trace.device or "a GPU it does not name"
        raise CalibrationError(f"{trace.path}: of {device}: --chip must name its preset ({known})")
    chip = CHIPS.load(name or found[0])
    if trace.sms not in (None, chip.sms):
        raise CalibrationError(
            f"{trace.path}: chip {chip.name} has {chip.sms} SMs, {trace.device} has {trace.sms}"
        )
    return chip


def traced_profile_text(
    trace: TorchTrace, shown: Traced, chip: ChipSpec, parent: KernelProfile
) -> str:
    """Return the profile as TOML.

    Raises:
        CalibrationError: no family has shapes enough to be fitted.
    """
    setting = Setting(chip.name, LIBRARY, VERSION)
    enough = [
        replace(rows, setting=setting)
        for rows in shown.rows
        if len(np.unique(rows.site)) >= SITES_MIN
    ]
    if not enough:
        raise CalibrationError(
            f"{trace.path}: no family has {SITES_MIN} shapes to fit; profile with "
            "record_shapes=True, or name the --model of a trace of DeepSeek's DualPipe"
        )
    document = fit_table_profile(enough, chip, parent).document
    _add_slowdowns(document, shown.factors)
    return document.text()


def _add_slowdowns(document: ProfileDocument, factors: Mapping[KernelClass, Factor]) -> None:
    slowdowns: dict[str, Any] = dict(document.tables.get("interference", {}))
    for kind, factor in factors.items():
        family = _family(kind)
        if family in slowdowns:
            slowdowns[family] = factor.value
            document.assumed.pop(f"interference.{family}", None)
            document.sources[f"interference.{family}"] = factor.source
    document.tables["interference"] = slowdowns


def _family(kind: KernelClass) -> str:
    """Return the family of a profile that a class of kernels is."""
    if kind.group == PRODUCTS:
        grouped = kind.name == "grouped gemm" and not kind.family.endswith("_grouped")
        return kind.family + ("_grouped" if grouped else "")
    return f"attention_{kind.family}" if kind.group == "attention" else kind.name
