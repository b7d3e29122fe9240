"""Every error this project raises on purpose.

    MoesimError                     exit 1: our bug, unless a leaf says otherwise
      InputError (ValueError)       exit 2: the input is wrong
        SpecError                   a document is malformed: unknown key, value out of bounds
          UnitError                 a quantity cannot be read, or has the wrong dimension
        UnknownPresetError          no preset of that name; carries the nearest known names
        InfeasibleError             well-formed but impossible: memory, divisibility, layout
        CalibrationError            measurements cannot be read or fitted
          OutOfRangeError           a profile is asked outside what it was fitted on
      MachineError                  exit 3: this machine lacks something (no GPU, no PyTorch)
      DeadlockError (RuntimeError)  exit 1: a task graph cannot finish; names what waits for what

A message is one line and says where, what was given and what is allowed.
"""

import difflib
from collections.abc import Iterable


class MoesimError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(MoesimError, ValueError):
    """The input is wrong."""

    exit_code = 2


class SpecError(InputError):
    """A document is malformed."""


class UnitError(SpecError):
    """A quantity cannot be read, or has the wrong dimension."""


class UnknownPresetError(InputError):
    """No preset of that kind has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(f"{kind} {name!r}: unknown preset{suggestion(name, self.known)}")


class InfeasibleError(InputError):
    """A well-formed request that cannot exist."""


class CalibrationError(InputError):
    """Measurements cannot be read or fitted."""


class OutOfRangeError(CalibrationError):
    """A profile is asked for something outside what it was fitted on."""


class MachineError(MoesimError):
    """This machine lacks something the command needs."""

    exit_code = 3


class DeadlockError(MoesimError, RuntimeError):
    """A task graph cannot finish."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` or `; known: ...` to close a message about a wrong word."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
