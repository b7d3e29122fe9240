"""A day on a borrowed device: what every part works with, and the record of it."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from calibration.gpu_day.budget import Budget
from calibration.gpu_day.files import RECORD, ROWS, SCHEMA
from calibration.gpu_day.sizes import Sizes
from calibration.measure.append_csv import AppendCsv, whole_rows
from calibration.measure.machine import Machine, first_line, measure, row
from calibration.measure.measurement import Point, RowWriter, key_of, read_rows, shape_text
from hwmodels.errors import CalibrationError

COMPILE_WAIT_S = 60.0
"""How long a row waits for its kernels; a tile that spills badly takes minutes to compile."""

COMPILE_LOOK_S = 5.0
"""How often it says meanwhile that it is alive."""

ENDED = "the process ended or hung in it"
COMPILER_ENDED = "not compiled: the compiling process ended"

SAME_DEVICE = ("name", "capability", "sms")
"""Of a device's facts, those by which a day knows the one that it was begun on."""


def refuse_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder in which no day can begin.

    Raises:
        CalibrationError: it is a file, holds a day that is not to be resumed, or is to be resumed
            and holds something else.
    """
    if out.exists() and not out.is_dir():
        raise CalibrationError(f"--out {out}: must be a folder, got a file")
    if (out / RECORD).exists() and not resume:
        raise CalibrationError(f"--out {out}: holds a day already; --resume goes on with it")
    if resume and not (out / RECORD).exists() and out.exists() and any(out.iterdir()):
        raise CalibrationError(f"--out {out}: holds no day to go on with, but other files")


def refuse_device(out: Path, machine: Machine) -> None:
    """Refuse to go on with a day that another device began: its rows would look like one's.

    Raises:
        CalibrationError: the folder's device is another, or its record is none.
    """
    began = (_known(out) or {}).get("device")
    here = machine.facts()
    if began is not None and any(began[name] != here[name] for name in SAME_DEVICE):
        raise CalibrationError(
            f"--out {out}: holds a day of {_told(began)}, got {_told(here)}; "
            "another device needs another folder"
        )


def _told(device: Mapping[str, Any]) -> str:
    return f"{device['name']} with {device['sms']} SMs"


def _known(out: Path) -> dict[str, Any] | None:
    """Return the record of a folder, None if it has none.

    Raises:
        CalibrationError: it is no record of a day.
    """
    try:
        known = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return {
            "starts": list(known["starts"]),
            "device": {name: known["device"][name] for name in SAME_DEVICE},
            "parts": dict(known["parts"]),
            "not_compiled": [dict(each) for each in known.get("not_compiled", ())],
            "suspects": list(known["suspects"]),
        }
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{out / RECORD}: is no record of a day: {first_line(error)}"
        ) from None


class Compilers(Protocol):
    """Who compiles beside the measuring; `calibration.measure.ahead.Ahead` does."""

    def wait(self, point: Point, seconds: float) -> str:
        """Wait until a point is compiled; `late` if it is not by then, `ended` if it never is."""

    def failures(self) -> list[tuple[Point, str]]:
        """Return what could not be compiled so far, and why in one line."""

    def close(self) -> None:
        """Stop."""


class Day:
    """The folder of a day, its device and its time.

    Attributes:
        machine: the device; sizes: what is measured, real or tiny.
        budget: seconds left.
        wrong: (kernel, configuration) that failed numerics; no configuration stands for what
            `choose` picks, and excludes the kernel altogether.
        cut_off: whether the running part had more to do than time.
        record: what `day.json` holds.
    """

    def __init__(
        self,
        out: Path,
        machine: Machine,
        sizes: Sizes,
        budget: Budget,
        compilers: Compilers | None = None,
    ) -> None:
        """Begin a day, or go on with the one in the folder.

        Raises:
            CalibrationError: the folder holds something else.
        """
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.machine, self.sizes, self.budget = out, machine, sizes, budget
        self.wrong: set[tuple[str, str]] = set()
        self.cut_off = False
        self._compilers, self._open = compilers, ExitStack()
        self.record = self._begun()
        self._tables: dict[str, tuple[AppendCsv, list[dict[str, str]]]] = {}
        self._rows = self._open.enter_context(RowWriter(out / ROWS, resume=True))
        # A row that failed would fail again, and time is short: it counts as done.
        self._done = {key_of(done) for done in read_rows(out / ROWS)}
        self._told_s = -float("inf")
        self.keep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        if self._compilers is not None:
            self._compilers.close()

    def keep(self) -> None:
        """Write the record; whoever reads it sees the old one or the new one."""
        self._collect_failures()
        whole = self.out / f"{RECORD}.new"
        with whole.open("w", encoding="utf-8") as file:
            json.dump(self.record, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        whole.replace(self.out / RECORD)

    def _collect_failures(self) -> None:
        """Add to the record what could not be compiled ahead: each kernel, configuration and reason
        once, with the first shape that it befell."""
        told: list[dict[str, Any]] = self.record["not_compiled"]
        known = {(each["kernel"], each["config"], each["error"]) for each in told}
        for point, why in self._compilers.failures() if self._compilers else ():
            if (point.kernel, point.config, why) not in known:
                known.add((point.kernel, point.config, why))
                shape = dict(point.shape)
                told.append(
                    {"kernel": point.kernel, "config": point.config, "error": why, "shape": shape}
                )

    def has_time(self) -> bool:
        """Return whether the running part may begin another row; to be asked before each."""
        self.cut_off = self.cut_off or self.budget.part_left_s == 0
        return not self.cut_off

    def table(
        self, file: str, columns: Sequence[str], what: str
    ) -> tuple[AppendCsv, list[dict[str, str]]]:
        """Return a table of the day to append to, and the rows it had when the day was begun.

        Raises:
            CalibrationError: the file holds something else.
        """
        if file not in self._tables:
            path = self.out / file
            table = self._open.enter_context(AppendCsv(path, columns, what, resume=True))
            self._tables[file] = table, whole_rows(path, columns, what)
        return self._tables[file]

    def excludes(self, kernel: str, config: str = "") -> bool:
        """Return whether a kernel computes wrong numbers, so that its times mean nothing."""
        return (kernel, "") in self.wrong or (kernel, config) in self.wrong

    def measure(self, points: Iterable[Point]) -> None:
        """Measure one point after another while there is time; each row is kept at once.

        Raises:
            MachineError: the device has failed.
        """
        for point in self._todo(points):
            why_not = self.begin("time", point)
            if why_not:
                left = self.machine.sms - point.held_sms
                self._rows.write(row(point, self.machine, left, None, why_not))
            else:
                self._rows.write(measure(point, self.machine))
            self._done.add(point.key)

    def begin(self, what: str, point: Point) -> str:
        """Say what is done now, and wait for its kernels; return why it cannot be done, or nothing.

        Whoever looks after this process reads from the record what it was doing when it ended, and
        that it does something at all.
        """
        doing = [what, *point.key]
        if doing in self.record["suspects"]:
            return ENDED
        self.record["doing"] = doing
        self.keep()
        self.tell(f"{what} of {point.kernel} {shape_text(point.shape)} {point.config}")
        if self._compilers is None:
            return ""
        for _ in range(round(COMPILE_WAIT_S / COMPILE_LOOK_S)):
            state = self._compilers.wait(point, COMPILE_LOOK_S)
            if state == "ended":
                return COMPILER_ENDED
            if state != "late":
                return ""
            self.keep()
        return f"not compiled within {COMPILE_WAIT_S:g} s"

    def _todo(self, points: Iterable[Point]) -> Iterator[Point]:
        for point in points:
            ours = point.provider == "moesim"
            if point.key in self._done or (ours and self.excludes(point.kernel, point.config)):
                continue
            if not self.has_time():
                return
            yield point

    @property
    def rows_done(self) -> int:
        """Rows kept in all files until now."""
        tables = sum(len(known) + table.appended for table, known in self._tables.values())
        return len(self._done) + tables

    def tell(self, doing: str) -> None:
        """Say what is done now and how much time is left: in place on a terminal, else at times."""
        stream, now_s = sys.stderr, self.budget.spent_s
        if not stream.isatty() and now_s - self._told_s < 10:
            return
        self._told_s = now_s
        text = f"{self.budget.left_s:4.0f} s left: {doing}"
        stream.write(f"\r\x1b[K{text[:110]}" if stream.isatty() else f"{text[:160]}\n")
        stream.flush()

    def _begun(self) -> dict[str, Any]:
        """Return the record so far, with this start added."""
        refuse_device(self.out, self.machine)
        known = _known(self.out) or {}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {
            "schema": SCHEMA,
            "starts": [*known.get("starts", ()), now],
            "device": self.machine.facts(),
            "versions": _versions(),
            "kernels_sha256": _digest_of_kernels(),
            "parts": known.get("parts", {}),
            "not_compiled": known.get("not_compiled", []),
            "doing": None,
            "suspects": known.get("suspects", []),
        }


def _versions() -> dict[str, str]:
    import numpy  # noqa: PLC0415 - only their versions are asked for
    import torch  # noqa: PLC0415
    import triton  # noqa: PLC0415

    return {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "triton": triton.__version__,
    }


def _digest_of_kernels() -> str:
    """Return a hash of all kernels and choices: what was measured, where no version control is."""
    import kernels  # noqa: PLC0415

    digest = hashlib.sha256()
    folder = Path(next(iter(kernels.__path__)))
    for file in sorted([*folder.glob("*.py"), *folder.glob("*.csv")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
