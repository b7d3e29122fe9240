"""The Tritons that kernels are compiled with: the installed one, and the oldest that is allowed.

The oldest lies in a folder of its own, by default `triton-3.6` beside the interpreter's `bin`,
where `make test` puts it; MOESIM_OLDEST_TRITON names another. In front of PYTHONPATH it hides the
installed one from a process.
"""

import os
import sys
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from calibration.measure.machine import TRITON_MIN

OLDEST = ".".join(map(str, TRITON_MIN))
INSTALLED, FOLDER = "installed", "MOESIM_OLDEST_TRITON"
TRITONS = (INSTALLED, OLDEST)


def folder_of_oldest() -> Path:
    """Return the folder that holds, or ought to hold, the oldest."""
    return Path(os.environ.get(FOLDER, Path(sys.prefix, f"triton-{OLDEST}"))).resolve()


def version_of(triton: str) -> str | None:
    """Return the exact version, None where it is not there."""
    if triton == INSTALLED:
        return version("triton")
    found = distributions(name="triton", path=[str(folder_of_oldest())])
    return next((each.version for each in found if each.version.startswith(f"{OLDEST}.")), None)


def require(triton: str) -> str:
    """Return the exact version; skip where it is not there, fail where it was said to be."""
    found = version_of(triton)
    if found:
        return found
    why = f"{folder_of_oldest()} holds no Triton {OLDEST}"
    if FOLDER in os.environ:
        pytest.fail(f"{why}, which {FOLDER} says", pytrace=False)
    pytest.skip(f"{why}; `make test` puts one there")


def environment(triton: str, **more: str) -> dict[str, str]:
    """Return the environment of a process that imports this Triton and our checkout."""
    paths = [path for path in sys.path if path]
    if triton != INSTALLED:
        paths.insert(0, str(folder_of_oldest()))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), **more}
