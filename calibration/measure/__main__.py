"""Measure the points of a plan on the GPU that is here.

    python -m calibration.measure PLAN.json --out ROWS.csv [--resume]

Needs Python, numpy, PyTorch and Triton, and of this project only `kernels` and a few files of this
folder. Exit 0: done; 2: the plan or the rows file is wrong; 3: the machine lacks something or
failed on the way, and what was measured is in the rows file.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calibration.measure.machine import first_line
from calibration.measure.run_plan import measure_file
from hwmodels.errors import MachineError, MoesimError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m calibration.measure", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("plan", type=Path, metavar="PLAN.json")
    parser.add_argument("--out", type=Path, required=True, metavar="ROWS.csv")
    parser.add_argument("--resume", action="store_true", help="continue ROWS.csv")
    options = parser.parse_args(arguments)
    try:
        return measure_file(options.plan, options.out, resume=options.resume)
    except MoesimError as error:
        sys.stderr.write(f"{first_line(error)}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{options.out}: {error.strerror}\n")
        return MachineError.exit_code


if __name__ == "__main__":
    sys.exit(main())
