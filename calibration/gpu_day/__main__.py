"""The command `python -m calibration.gpu_day`; see the package for what it does.

Exit 0: the day is over, whatever it had time for; 2: the command or the folder is wrong; 3: there
is no GPU, or it failed on the way, and what was measured is in the folder.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import calibration.gpu_day
from calibration.gpu_day.files import RECORD
from calibration.gpu_day.supervise import supervise
from calibration.measure.process import end_with_parent
from hwmodels.errors import CalibrationError, MachineError, MoesimError

if TYPE_CHECKING:
    from calibration.gpu_day.day import Day
    from calibration.gpu_day.parts import Part

BUDGET_S = 480.0
BUDGETS_S = (10.0, 24 * 3600.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except MoesimError as error:
        sys.stderr.write(f"{' '.join(str(error).split())}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"--out {options.out}: cannot be written: {error.strerror}\n")
        return MachineError.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calibration.gpu_day",
        description=calibration.gpu_day.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the day")
    parser.add_argument(
        "--budget", type=float, default=BUDGET_S, metavar="SECONDS", help=f"{BUDGET_S:.0f}"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the day in DIR")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="these parts")
    parser.add_argument("--list", action="store_true", help="print the parts and what they take")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # not supervised
    parser.add_argument("--dry-run", action="store_true", help="tiny, in Triton's interpreter")
    return parser


def _run(options: argparse.Namespace) -> int:
    """Check the options before anything heavy is loaded; then list, or run.

    Raises:
        CalibrationError: an option or the folder is wrong.
        MachineError: no GPU, or it failed on the way.
    """
    low, high = BUDGETS_S
    if not low <= options.budget <= high:
        raise CalibrationError(f"--budget: from {low:g} to {high:g} s, got {options.budget:g}")
    if options.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined: before its import
    _require_libraries()
    from calibration.gpu_day.parts import chosen  # noqa: PLC0415 - imports torch and triton

    parts = chosen(options.only)
    if options.list:
        sys.stdout.write(listed(parts, dry=options.dry_run))
        return 0
    if options.out is None:
        raise CalibrationError("--out: names the folder of the day, got none")
    from calibration.gpu_day.day import refuse_folder  # noqa: PLC0415

    if options.dry_run or options.alone:
        return _run_alone(options, parts)
    refuse_folder(options.out, resume=options.resume)

    def command(resume: bool, left_s: float) -> list[str]:
        only = ["--only", *options.only] if options.only else []
        again = ["--resume"] if resume else []
        return [
            sys.executable, "-m", "calibration.gpu_day", "--alone", "--out", str(options.out),
            "--budget", str(max(left_s, BUDGETS_S[0])), *only, *again,
        ]  # fmt: skip

    return supervise(command, options.out / RECORD, options.budget, resume=options.resume)


def _run_alone(options: argparse.Namespace, parts: "Mapping[str, Part]") -> int:
    """Run the parts in this process."""
    from calibration.gpu_day.run import run_parts  # noqa: PLC0415

    if options.alone:
        end_with_parent()
    with _day(options, parts) as day:
        run_parts(day, parts)
    return 0


def _require_libraries() -> None:
    try:
        import torch  # noqa: F401, PLC0415 - whether it is there is the question
        import triton  # noqa: F401, PLC0415
    except ImportError as error:
        raise MachineError(f"a day on a GPU needs PyTorch and Triton: {error}") from error


def _day(options: argparse.Namespace, parts: "Mapping[str, Part]") -> "Day":
    """Return the day in its folder, on the GPU that is here or on none."""
    from calibration.gpu_day.budget import Budget  # noqa: PLC0415
    from calibration.gpu_day.day import Day, refuse_device, refuse_folder  # noqa: PLC0415
    from calibration.gpu_day.sizes import RealSizes, TinySizes  # noqa: PLC0415

    refuse_folder(options.out, resume=options.resume)  # before minutes are spent on compilers
    if options.dry_run:
        from calibration.gpu_day.dry import DryMachine  # noqa: PLC0415

        dry = DryMachine()
        budget = Budget(options.budget, dry.clock)
        return Day(options.out, dry, TinySizes(), budget)
    from calibration.measure.ahead import Ahead  # noqa: PLC0415
    from calibration.measure.machine import find_gpu  # noqa: PLC0415

    budget, machine, sizes = Budget(options.budget), find_gpu(), RealSizes()
    refuse_device(options.out, machine)  # before processes are started that compile for it
    points = [point for part in parts.values() for point in part.points(sizes)]
    ahead = Ahead(points, machine.facts()["capability"], machine.sms, device=machine.name)
    return Day(options.out, machine, sizes, budget, ahead)


def listed(parts: "Mapping[str, Part]", *, dry: bool) -> str:
    """Return the parts in order, with the seconds each would like and why."""
    from calibration.gpu_day.sizes import RealSizes, TinySizes  # noqa: PLC0415

    sizes = TinySizes() if dry else RealSizes()
    lines = [f"{'part':10}{'share':>6}{'wants':>8}  because\n"]
    for name, part in parts.items():
        wants = part.estimate(sizes)
        lines.append(f"{name:10}{part.SHARE:6.0%}{wants.seconds:6.0f} s  {wants.reason}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
