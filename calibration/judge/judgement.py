"""All that a day says, as one document."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.judge.cost_fits import CostFit, chip_of, cost_fits
from calibration.judge.folder import Day, OtherDevice, WrongKernel, read_day
from calibration.judge.rates import Ceilings, Rate, ceilings, rates
from calibration.judge.sharing import Beside, Curve, beside, curves
from calibration.judge.targets import Verdict, verdicts
from calibration.judge.winners import Winner, winners

HOPPER = 90
"""Compute capability of the devices that the targets are for."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A row without a time, and why."""

    kernel: str
    provider: str
    shape: str
    mode: str
    config: str
    error: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A day judged; every field a table.

    Attributes:
        device, versions, parts: of `day.json`.
        notes: what a reader should know before reading on.
        wrong, other_devices: what was left out; failures: what has no time.
        ceilings, rates, targets: how fast kernels ran, beside what they ran against.
        winners: of the sweep, by class of shapes; of an empty configuration where what `choose`
            picks today stays.
        curves, beside: what fewer SMs and a copying neighbour cost.
        chip: preset that cost models were fitted for; None where there is none.
        cost_fits: which models fit, and how well; empty without a chip.
    """

    device: dict[str, Any]
    versions: dict[str, Any]
    parts: dict[str, Any]
    notes: tuple[str, ...]
    wrong: tuple[WrongKernel, ...]
    other_devices: tuple[OtherDevice, ...]
    failures: tuple[Failure, ...]
    ceilings: Ceilings
    targets: list[Verdict]
    rates: list[Rate]
    winners: list[Winner]
    curves: list[Curve]
    beside: list[Beside]
    chip: str | None
    cost_fits: list[CostFit]


def judge(path: Path, chip_name: str | None = None) -> Judgement:
    """Judge the day in a folder.

    Args:
        chip_name: preset of the device; without it, the one that the device's name holds.

    Raises:
        CalibrationError: the folder holds no day that can be judged, or the chip is another.
        UnknownPresetError: there is no such chip.
    """
    day = read_day(path)
    chip = chip_of(day, chip_name)
    return Judgement(
        device=day.record["device"],
        versions=dict(day.record.get("versions", {})),
        parts=day.record["parts"],
        notes=tuple(_notes(day, chip is None)),
        wrong=day.wrong,
        other_devices=day.others,
        failures=tuple(
            Failure(row.kernel, row.provider, row.shape, row.mode, row.config, row.error)
            for row in day.failed
        ),
        ceilings=ceilings(day),
        targets=verdicts(day),
        rates=rates(day),
        winners=winners([*day.rows, *day.failed]),
        curves=curves(day),
        beside=beside(day),
        chip=None if chip is None else chip.name,
        cost_fits=[] if chip is None else cost_fits(day, chip),
    )


def _notes(day: Day, no_chip: bool) -> list[str]:
    notes = []
    capability = day.record["device"]["capability"]
    if capability != HOPPER:
        notes.append(
            f"the targets are for an H100-class GPU (compute capability {HOPPER}); this one has "
            f"{capability}"
        )
    unfinished = [name for name, part in day.record["parts"].items() if part["state"] != "done"]
    if unfinished:
        notes.append(f"not done: {', '.join(unfinished)}")
    if no_chip:
        notes.append(
            f"no chip preset is a {day.device} with {day.sms} SMs, so no cost model is fitted; "
            "--chip names one"
        )
    return notes
