"""Manners of a process that was started by another."""

import ctypes
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux' prctl


def end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however that comes about."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
