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

A message is one line and says where, what was given and what is allowed. Whatever is put into it,
it holds on one line of a terminal log: `MoesimError` escapes line breaks and cuts what is too long.
"""

import difflib
import itertools
from collections.abc import Iterable
from pathlib import Path

MESSAGE_CHARACTERS = 280
"""Longest message; with the name of the program before it, still below 300."""

VALUE_CHARACTERS = 80
"""Longest value, key or word in a message."""

LISTED_CHARACTERS = 120
"""Longest list of known names in a message."""


class MoesimError(Exception):
    """Root of the tree; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


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
        super().__init__(f"{kind} {shown(name)}: unknown preset{suggestion(name, self.known)}")


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
    is_word = len(word) <= VALUE_CHARACTERS
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) if is_word else []
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {listed(known)}" if known else ""


def listed(names: Iterable[str]) -> str:
    """Return `a, b, c`, or as many of the names as a message has room for: `a, b and 12 more`."""
    names = list(names)
    text = ", ".join(names)
    if len(text) <= LISTED_CHARACTERS:
        return text
    ends = itertools.accumulate(len(name) + 2 for name in names)
    fit = max(1, sum(end <= LISTED_CHARACTERS for end in ends))
    return f"{', '.join(names[:fit])} and {len(names) - fit} more"


def shown(value: object) -> str:
    """Return `repr(value)` as it goes into a message, cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"{type(value).__name__} nested too deeply"
    except ValueError:  # Python writes no integers of thousands of digits
        text = f"{type(value).__name__} of too many digits"
    return _cut(text, VALUE_CHARACTERS)


def one_line(text: str) -> str:
    """Return text on one line and short: control characters escaped, the middle cut out.

    What is wrong stands at the beginning of a message and what is allowed at its end.
    """
    short = _cut(text, MESSAGE_CHARACTERS)
    if not short.isprintable():
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)
        short = _cut("".join(escaped), MESSAGE_CHARACTERS)
    return short


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


def found_at(path: Path) -> str:
    """Return what is at a path that could not be read, to follow "expected ..., got"."""
    if not path.exists():
        return "nothing there"
    return "a folder" if path.is_dir() else "a file that may not be read"
