"""Which configuration of each kernel a sweep on a GPU has shown to be the best, class by class.

A class holds shapes that share a configuration (`kernels._choices`). What `choose` picks today was
measured at each of them, as rows without a configuration; another one takes its place if that is no
chance and no shape pays for it:

- it has a time at every shape of the class that was swept, so it failed nowhere;
- over these shapes the geometric mean of its p80 is below that of the present choice's p20;
- at none of them its p20 is above the present choice's p80.

The geometric mean weighs shapes alike, however long they take. Where the present choice itself has
no time nothing can be compared: its failure is the finding. Needs no PyTorch and no Triton.
"""

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from calibration.measure.measurement import DRY_DEVICE, Measurement
from hwmodels.errors import CalibrationError
from kernels._choices import COLUMNS, Choice, read_choices, shape_class

PRESENT = ""
"""In place of a configuration: what `choose` picks."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The best configuration of a kernel for a class of shapes on one device.

    Times are geometric means over the shapes of the class.

    Attributes:
        config: fields of the kernel's `Config` as JSON; empty where the present choice stays.
        time_s: of the winner.
        runner_up_s: of the fastest other; the present choice counts as one, and a sweep holds it
            twice, for it is one of the configurations too.
        present_s: of what `choose` picks today.
        date: of the latest row.
    """

    kernel: str
    shape_class: str
    config: str
    time_s: float
    runner_up_s: float
    present_s: float
    device: str
    triton: str
    date: str

    @property
    def stays(self) -> bool:
        """Whether what `choose` picks today was not beaten."""
        return self.config == PRESENT


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quantiles of one configuration at one shape, in seconds."""

    time_s: float
    p20_s: float
    p80_s: float


Contest = dict[str, dict[str, Spread | None]]
"""Configuration -> shape -> its times, None where it failed: all of one class."""


def winners(rows: Sequence[Measurement], wrong: Collection[tuple[str, str]] = ()) -> list[Winner]:
    """Return the winner of each kernel, class of shapes, device and Triton that was swept.

    Args:
        rows: of a day, the failed ones included: who fails at a shape cannot be chosen for it.
            Only our kernels alone on a device count, and not those of a dry run.
        wrong: (kernel, configuration) that computes something else than its reference; an empty
            configuration excludes the kernel.

    Raises:
        CalibrationError: a row of an unknown kernel, or of a shape that is none of its kernel's.
    """
    classes: dict[tuple[str, str, str, str], list[Measurement]] = defaultdict(list)
    for row in rows:
        if _counts(row, wrong):
            classes[row.kernel, _class_of(row), row.device, row.triton].append(row)
    found = (_winner(*key, members) for key, members in sorted(classes.items()))
    return [winner for winner in found if winner is not None]


def _counts(row: Measurement, wrong: Collection[tuple[str, str]]) -> bool:
    alone = row.provider == "moesim" and row.mode == "isolated" and not row.sustained
    excluded = (row.kernel, PRESENT) in wrong or (row.kernel, row.config) in wrong
    return alone and not excluded and row.device != DRY_DEVICE


def _class_of(row: Measurement) -> str:
    try:
        return shape_class(row.kernel, json.loads(row.shape))
    except (ValueError, TypeError, AttributeError) as error:
        raise CalibrationError(f"row of {row.kernel} {row.shape}: {error}") from None


def _winner(
    kernel: str, shape_class_: str, device: str, triton: str, rows: Sequence[Measurement]
) -> Winner | None:
    """Return the winner of one class; None where nothing can be compared with the present."""
    contest = _contest(rows)
    present = {shape: spread for shape, spread in contest.pop(PRESENT, {}).items() if spread}
    shapes = sorted(set(present).intersection(*[set().union(*contest.values())]))
    whole = {PRESENT: [present[shape] for shape in shapes]}
    for config, runs in contest.items():
        spreads = [spread for shape in shapes if (spread := runs.get(shape))]
        failed = any(spread is None for spread in runs.values())
        if len(spreads) == len(shapes) and not failed:
            whole[config] = spreads
    if not shapes or len(whole) < 2:
        return None
    times_s = {config: _mean(s.time_s for s in spreads) for config, spreads in whole.items()}
    better = [config for config in whole if _beats(whole[config], whole[PRESENT])]
    best = min(better, key=lambda config: (times_s[config], config), default=PRESENT)
    return Winner(
        kernel,
        shape_class_,
        best,
        times_s[best],
        min(time_s for config, time_s in times_s.items() if config != best),
        times_s[PRESENT],
        device,
        triton,
        max(row.date for row in rows),
    )


def _contest(rows: Iterable[Measurement]) -> Contest:
    """Return the times of a class; rows of the same thing are averaged, a failure among them not
    counted."""
    every: dict[tuple[str, str], list[Spread]] = defaultdict(list)
    for row in rows:
        timed = every[row.config, row.shape]
        if row.time_s and row.p20_s and row.p80_s:
            timed.append(Spread(row.time_s, row.p20_s, row.p80_s))
    contest: Contest = defaultdict(dict)
    for (config, shape), spreads in every.items():
        contest[config][shape] = _average(spreads) if spreads else None
    return contest


def _average(spreads: Sequence[Spread]) -> Spread:
    return Spread(
        _mean(spread.time_s for spread in spreads),
        _mean(spread.p20_s for spread in spreads),
        _mean(spread.p80_s for spread in spreads),
    )


def _beats(mine: Sequence[Spread], present: Sequence[Spread]) -> bool:
    """Whether a configuration is clearly faster over all shapes, and clearly slower at none."""
    faster = _mean(spread.p80_s for spread in mine) < _mean(spread.p20_s for spread in present)
    pairs = zip(mine, present, strict=True)
    return faster and not any(here.p20_s > there.p80_s for here, there in pairs)


def _mean(times_s: Iterable[float]) -> float:
    """Return the geometric mean; sorted, so that the order of rows cannot move its last digit."""
    return math.exp(fmean(sorted(math.log(time_s) for time_s in times_s)))


def write_choices(path: Path, found: Iterable[Winner]) -> None:
    """Put winners into a table of choices; rows of other classes and devices stay.

    Where the present choice stays, so does its row, if it has one. Of two winners for the same
    class and device, measured with two versions of Triton, the later counts.

    Raises:
        CalibrationError: the file holds something else.
    """
    try:
        choices = read_choices(path) if path.exists() else {}
    except ValueError as error:
        raise CalibrationError(str(error)) from None
    for winner in sorted(found, key=lambda winner: winner.date):
        if not winner.stays:
            choice = _choice(winner)
            choices[choice.key] = choice
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(choices[key].cells for key in sorted(choices))
    new = path.with_name(f"{path.name}.new")
    new.write_text(text.getvalue(), encoding="utf-8")
    new.replace(path)


def _choice(winner: Winner) -> Choice:
    return Choice(
        winner.kernel,
        winner.shape_class,
        winner.config,
        winner.time_s,
        winner.runner_up_s,
        winner.device,
        winner.triton,
        winner.date,
    )
