"""What won a sweep on a GPU, as data that each kernel's `choose` asks before it reasons.

A row of `choices.csv` says: for this kernel, this class of shapes and this device, take this
configuration. `calibration.judge.winners` writes it. A kernel names its classes beside its
configurations by upper bounds of what matters to it:

    CLASSES = {"m": (64, 512)}    # three classes: m<=64, 64<m<=512, m>512

    @measured(Config, CLASSES)    # of kernels._device: asks the table, then the function
    def choose(m, n, sms): ...

    cfg = config or choose(m, n, sms, device=a.device)

The keys of CLASSES are arguments of `choose` and sizes of a shape (`sizes`), or `a/b` for the ratio
of two; several keys make a class of each combination. Without bounds all shapes are one class.

A row counts on the device whose name it carries and on no other. H100, H800 and H200 share a
chip, but not the SMs, clocks, power limit and memory rate that decide between two tiles. Where no
row exists, the configuration is the one that `choose` gives by reasoning. Rows are measured on all
SMs of a device, and count for launches on fewer of them too.

Nothing here needs PyTorch or Triton, so that rows can be judged on any machine.
"""

import ast
import csv
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("choices.csv")
COLUMNS = ("kernel", "class", "config", "time_s", "runner_up_s", "device", "triton", "date")
_ATTRIBUTES = {"class": "shape_class"}  # of a Choice, where a column's name is Python's own
ALL = "all"
"""The class of a kernel that has only one."""

GROUP_ROWS = 128
"""To a multiple of so many the rows of a group are padded."""

Classes = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Choice:
    """One row of the table.

    Attributes:
        config: fields of the kernel's `Config`, as JSON.
        time_s, runner_up_s: of winner and next, as `calibration.judge.winners` means them.
        triton: version with which it won; another may compile the same tile better or worse.
        where: file and line, for messages.
    """

    kernel: str
    shape_class: str
    config: str
    time_s: float
    runner_up_s: float
    device: str
    triton: str
    date: str
    where: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What a table has one row for."""
        return self.kernel, self.shape_class, self.device

    @property
    def cells(self) -> tuple[str | float, ...]:
        """The row, in the order of COLUMNS."""
        return tuple(getattr(self, _ATTRIBUTES.get(name, name)) for name in COLUMNS)

    def configuration(self, config: type) -> Any:
        """Return the kernel's configuration.

        Raises:
            ValueError: the kernel's `Config` has no such field; says where.
        """
        try:
            return config(**json.loads(self.config))
        except TypeError as error:
            raise ValueError(
                f"{self.where}: {self.kernel}: config {self.config}: {error}"
            ) from None


def chosen(kernel: str, shape_class: str, device: str) -> Choice | None:
    """Return what won for a class of shapes on a device of this name, None if nobody measured.

    Raises:
        ValueError: the table is malformed; says file and line.
    """
    return table(FILE).get((kernel, shape_class, device))


@functools.cache
def table(path: Path) -> dict[tuple[str, str, str], Choice]:
    """Return the rows of a file by kernel, class and device, as `read_choices` does, read once."""
    return read_choices(path)


def read_choices(path: Path) -> dict[tuple[str, str, str], Choice]:
    """Return the rows of a file by kernel, class and device.

    Raises:
        ValueError: it is malformed; says file and line.
    """
    found: dict[tuple[str, str, str], Choice] = {}
    for choice in _rows(path):
        if choice.key in found:
            raise ValueError(
                f"{choice.where}: a second row of {', '.join(choice.key)}; one is allowed"
            )
        found[choice.key] = choice
    return found


def _rows(path: Path) -> Iterator[Choice]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if tuple(header) != COLUMNS:
            raise ValueError(f"{path}:1: the columns must be {','.join(COLUMNS)}, got {header}")
        for cells in rows:
            yield _choice(cells, f"{path}:{rows.line_num}")


def _choice(cells: list[str], where: str) -> Choice:
    if len(cells) != len(COLUMNS) or "" in cells:
        raise ValueError(f"{where}: {len(COLUMNS)} cells are needed, none empty, got {cells}")
    kernel, shape_class, config, time_s, runner_up_s, device, triton, date = cells
    try:
        whole = isinstance(json.loads(config), dict)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"{where}: config must be a JSON object, got {config!r}")
    times_s = _seconds(time_s, where), _seconds(runner_up_s, where)
    return Choice(kernel, shape_class, config, *times_s, device, triton, date, where)


def _seconds(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{where}: a time must be a number of seconds above 0, got {cell!r}")
    return value


def shape_class(kernel: str, shape: Mapping[str, Any]) -> str:
    """Return the class of a shape, as `inputs` takes it; the launch of it finds the same.

    Raises:
        ValueError: no such kernel, or the shape lacks a size that its classes are made by.
    """
    try:
        return class_of(classes(kernel), sizes(shape))
    except KeyError as error:
        raise ValueError(f"{kernel}: shape {dict(shape)} has no size {error}") from None


def class_of(by: Classes, given: Mapping[str, Any]) -> str:
    """Return the name of the class of some sizes, such as `m>512 and heads<=16`."""
    return " and ".join(_range(name, by[name], _size(name, given)) for name in by) or ALL


def names_of(by: Classes) -> list[str]:
    """Return the names of all classes."""
    ranges = ([_range(name, by[name], top) for top in (*by[name], math.inf)] for name in by)
    return [" and ".join(each) or ALL for each in itertools.product(*ranges)]


def _size(name: str, given: Mapping[str, Any]) -> float:
    over, _, under = name.partition("/")
    return given[over] / given[under] if under else given[over]


def _range(name: str, bounds: tuple[float, ...], size: float) -> str:
    below = [bound for bound in bounds if bound < size]
    above = [bound for bound in bounds if bound >= size]
    if not above:
        return f"{name}>{below[-1]}"
    return f"{below[-1]}<{name}<={above[0]}" if below else f"{name}<={above[0]}"


def sizes(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a shape; one with counts of its groups has `groups` and `rows` too.

    Rows are those of the buffer, for a launch knows no others: counts stay on the device. Masked
    groups have the capacity of the largest each, the others only their own padding.
    """
    if "counts" not in shape:
        return dict(shape)
    padded = [-(-count // GROUP_ROWS) * GROUP_ROWS for count in shape["counts"]]
    groups = len(padded)
    rows = groups * max(*padded, GROUP_ROWS) if shape.get("masked") else sum(padded)
    return {**shape, "groups": groups, "rows": rows}


@functools.cache
def classes(kernel: str) -> Classes:
    """Return CLASSES of a kernel's file, which is read and not run: that would import torch.

    Raises:
        ValueError: no such kernel.
    """
    file = Path(__file__).with_name(f"{kernel}.py")
    if not file.is_file():
        raise ValueError(f"kernel {kernel!r}: unknown")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="CLASSES")], value=value):
                found: Classes = ast.literal_eval(value)
                return found
    return {}
