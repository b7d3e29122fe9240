"""A measured layer joined with the same layer simulated: calibration measures and compares, the
simulator prices the kernels and plays the host that launches them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibration.gpu_day.files import BLOCKING, EAGER, GRAPH
from calibration.judge.cost_fits import chip_called
from calibration.judge.folder import read_kept
from calibration.read.trace_rows import read_trace_data
from calibration.validate import transfer
from calibration.validate.comparison import (
    FamilyLine,
    LayerOps,
    OpLine,
    TotalLine,
    family_lines,
    issue_s,
    layer_ops,
    op_lines,
    total_lines,
)
from calibration.validate.own_profile import own_op, own_profile
from calibration.validate.rows import FailedOp, StackRows, read_stack
from calibration.validate.transfer import TransferLine, transfer_lines
from hwmodels.arrays import Floats
from hwmodels.chip import CHIPS, ChipSpec
from hwmodels.errors import CalibrationError
from hwmodels.profile import PROFILES, KernelProfile
from hwmodels.units import format_quantity
from simulator.driver.launches import as_graph_s, one_by_one_s
from simulator.price.kernels import KernelPricer
from workloads.ops import Op

ROOFLINE = "none"
"""What `--profile` says for the datasheet alone."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Everything that is told; every field from `totals` on a table.

    Attributes:
        rows: path of what was measured.
        basis: of the prices; host: of the time that a launch takes.
        ops, failed: with and without a time.
        unmeasured: ops of the workload that no kernel of the layer was.
        transfer: families of DeepSeek's trace; empty where none was given.
        transfer_basis: of its prices.
    """

    rows: str
    device: str
    chip: str
    basis: str
    host: str
    notes: tuple[str, ...]
    totals: list[TotalLine]
    families: list[FamilyLine]
    ops: list[OpLine]
    failed: list[FailedOp]
    unmeasured: list[str]
    transfer: list[TransferLine]
    transfer_basis: str


@dataclass(frozen=True, slots=True)
class Prices:
    """What kernels are priced with; `own` where the profile is of the kernels themselves."""

    pricer: KernelPricer
    own: bool

    def priced_as(self, joined: LayerOps) -> list[Op]:
        """Return the ops of a layer as they are priced."""
        profile = self.pricer.profile
        if not self.own or profile is None:
            return list(joined.ops)
        pairs = zip(joined.ops, joined.layer.ops, strict=True)
        return [own_op(op, of.kernel, of.bytes, profile) for op, of in pairs]


class PricedLayer(NamedTuple):
    """Ops of a layer with (ops,) seconds of their kernels, of the gaps between those, and what the
    prices rest on.
    """

    joined: LayerOps
    kernels_s: Floats
    gaps_s: Floats
    bases: tuple[str, ...]


def validation(
    rows: Path, chip: str | None, profile: str | None, host_s: float | None, trace: Path | None
) -> Validation:
    """Judge what was measured of a layer.

    Args:
        rows: folder of a day, or its `stack.csv`.
        chip, profile: presets or files; without a profile, constants of the day's own kernels where
            there are any, else the roofline.
        host_s: of the host for every launch, instead of what was measured.
        trace: of DeepSeek's training, whose kernels are priced too.

    Raises:
        CalibrationError: the rows cannot be judged.
        UnknownPresetError, SpecError: no such preset, or a chip without a tensor rate that is used.
    """
    measured = read_stack(rows)
    prices = _prices(measured, chip, profile)
    host = issue_s(measured.layers, host_s)
    layers = {layer.name: _priced(layer_ops(layer), prices) for layer in measured.layers}
    ops = [
        line
        for priced in layers.values()
        for line in op_lines(priced.joined, priced.kernels_s, priced.bases)
    ]
    moved = KernelPricer(CHIPS.load(transfer.CHIP), prices.pricer.profile, transfer.SMS)
    return Validation(
        rows=str(rows),
        device=measured.device,
        chip=prices.pricer.chip.name,
        basis=prices.pricer.basis,
        host=_told(host, host_s),
        notes=tuple(_notes(measured)),
        totals=list(_totals(measured, layers, host)),
        families=family_lines(ops),
        ops=ops,
        failed=[failed for layer in measured.layers for failed in layer.failed],
        unmeasured=[name for priced in layers.values() for name in priced.joined.unmeasured],
        transfer=[] if trace is None else _transfer(trace, moved),
        transfer_basis=moved.basis,
    )


def _prices(measured: StackRows, chip_name: str | None, profile_name: str | None) -> Prices:
    chip = chip_called(measured.device, measured.sms, chip_name, measured.path)
    if chip is None:
        raise CalibrationError(
            f"{measured.path}: no chip preset is a {measured.device}"
            f"{f' with {measured.sms} SMs' if measured.sms else ''}; --chip names one"
        )
    if profile_name is None:
        own = _own(measured, chip)
        return Prices(KernelPricer(chip, own, chip.sms), own is not None)
    known = None if profile_name == ROOFLINE else PROFILES.load(profile_name)
    return Prices(KernelPricer(chip, known, chip.sms), own=False)


def _own(measured: StackRows, chip: ChipSpec) -> KernelProfile | None:
    """Return constants of the kernels that were timed on the day of the layer, if it was one."""
    return own_profile(read_kept(measured.path), chip) if measured.path.is_dir() else None


def _priced(joined: LayerOps, prices: Prices) -> PricedLayer:
    ops = prices.priced_as(joined)
    costs = prices.pricer.price(ops)
    bases = tuple(prices.pricer.basis_of(op.family) for op in ops)
    return PricedLayer(joined, costs.duration_s[:, 0], costs.gap_s, bases)


def _totals(
    measured: StackRows, layers: Mapping[str, PricedLayer], host: Mapping[str, float]
) -> Iterator[TotalLine]:
    """Yield layers and stacks of them beside what they take when they are played."""
    for layer in measured.layers:
        yield from total_lines(layer, *_played([layers[layer.name]], host))
    for stack in measured.stacks:
        parts = [layers[name] for name in stack.layers if name in layers and layers[name].bases]
        if len(parts) < len(stack.layers):
            yield from total_lines(stack, {}, "a layer of it was not measured")
        else:
            whole = [part for part in parts for _ in range(stack.depth)]
            yield from total_lines(stack, *_played(whole, host))


def _played(
    layers: Sequence[PricedLayer], host: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """Return the seconds of layers behind each other by mode, and why some are missing."""
    ops = [op for priced in layers for op in priced.joined.layer.ops]
    device_s = np.concatenate([priced.kernels_s + priced.gaps_s for priced in layers])
    played = {GRAPH: as_graph_s(device_s)}
    unknown = [op.kernel for op in ops if op.kernel not in host]
    if unknown:
        return played, f"no time of the host to launch {unknown[0]}; --host-launch gives one"
    launches_s = np.array([host[op.kernel] for op in ops])
    labels = [op.op for op in ops]
    played[EAGER] = one_by_one_s(labels, device_s, launches_s)
    played[BLOCKING] = one_by_one_s(labels, device_s, launches_s, waits=True)
    return played, ""


def _told(host: dict[str, float], given_s: float | None) -> str:
    if given_s is not None:
        return f"{format_quantity(given_s, 's')} a launch, as given"
    if not host:
        return "not measured"
    low, high = (format_quantity(bound, "s") for bound in (min(host.values()), max(host.values())))
    return f"{low} to {high} a launch, measured kernel by kernel"


def _notes(measured: StackRows) -> Iterator[str]:
    if measured.other_rows:
        yield f"{measured.other_rows} rows of another device are left out"
    for layer in measured.layers:
        if layer.dimensions is None:
            yield f"{layer.name}: {len(layer.ops)} ops without a total are not judged"


def _transfer(trace: Path, pricer: KernelPricer) -> list[TransferLine]:
    rows = read_trace_data(trace).rows
    costs = pricer.price([row.op for row in rows], np.array([row.load for row in rows]))
    return transfer_lines(rows, np.diagonal(costs.duration_s).copy())
