"""Questions about the device and checks of arguments, shared by the launchers.

Nothing here asks the driver anything until a launcher calls it: importing a kernel must work on
a machine without a GPU.
"""

import contextvars
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from kernels import _choices
from kernels._choices import Classes, chosen, class_of

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0  # largest finite E4M3 value
BLOCK = 128  # elements that share a scale, along k and (weights) along n

# A device that is no GPU only interprets or compiles; any count is right there. A small one makes
# a persistent kernel walk several tiles per program even on the tiny shapes of a test.
OFF_GPU_SMS = 3

# Whoever compiles for a GPU that is elsewhere puts its name here: launches then choose as on it.
OFF_GPU_NAME = ""


def interpreting() -> bool:
    """Return whether Triton's CPU interpreter runs the kernels.

    Its bf16 arithmetic is wrong and its casts to bf16 and fp8 do not round to nearest, so every
    kernel takes `UPCAST=interpreting()`: compute in fp32 and round with integer arithmetic.
    """
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@functools.cache
def _sms_of(index: int) -> int:
    return int(torch.cuda.get_device_properties(index).multi_processor_count)


def sm_count(device: torch.device) -> int:
    """Return how many SMs a persistent grid may fill."""
    if device.type != "cuda":
        return OFF_GPU_SMS
    return _sms_of(device.index if device.index is not None else torch.cuda.current_device())


@functools.cache
def _name_of(index: int) -> str:
    return str(torch.cuda.get_device_properties(index).name)


def device_name(device: torch.device) -> str:
    """Return the name by which `choices.csv` knows a device; empty off a GPU, of which it has none.

    Measured rows carry the same name.
    """
    if device.type != "cuda":
        return OFF_GPU_NAME
    return _name_of(device.index if device.index is not None else torch.cuda.current_device())


def measured(config: type, classes: Classes) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a kernel's `choose` ask `choices.csv` before it reasons: see `kernels._choices`.

    What comes out takes the device that runs as a keyword, `device=`. A configuration measured on a
    device of that name for the class of the arguments is the answer; without such a row, or without
    a device, the answer is the function's own.

    Args:
        config: the kernel's dataclass.
        classes: the kernel's CLASSES; their keys are arguments of the function.

    Raises:
        ValueError: the table is malformed; says file and line.
    """

    def ask_first(reason: Callable[..., Any]) -> Callable[..., Any]:
        kernel = reason.__module__.rpartition(".")[2]
        names = reason.__code__.co_varnames[: reason.__code__.co_argcount]

        @functools.cache  # by the table too: tests have their own
        def on_device(_table: Path, name: str, *sizes: int) -> Any:
            shape_class = class_of(classes, dict(zip(names, sizes, strict=True)))
            choice = chosen(kernel, shape_class, name)
            return reason(*sizes) if choice is None else choice.configuration(config)

        @functools.wraps(reason)
        def choose(*sizes: int, device: torch.device | None = None) -> Any:
            name = "" if device is None else device_name(device)
            return on_device(_choices.FILE, name, *sizes) if name else reason(*sizes)

        return choose

    return ask_first


def programs(wanted: int, device: torch.device, sms: int | None, per_sm: int = 1) -> int:
    """Return the size of a persistent grid: `per_sm` programs on each of `sms` SMs (None: all)."""
    if sms is not None and sms < 1:
        raise ValueError(f"sms: {sms} given, at least 1 is needed")
    room = (sms if sms is not None else sm_count(device)) * per_sm
    return max(1, min(wanted, room))


def _scratch(size: int, _alignment: int, _stream: int | None) -> Tensor:
    """Return memory for Triton; torch's own starts on 512 bytes, and its stream is the kernel's."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def with_scratch(launch: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Launch a kernel that may make TMA descriptors, each in 128 bytes of memory of its own.

    Triton asks for that memory through an allocator of the context; the caller's stays as it is.
    """

    def run() -> None:
        triton.set_allocator(_scratch)
        launch(*args, **options)

    contextvars.copy_context().run(run)


def ceil_div(a: int, b: int) -> int:
    """Return `a / b`, rounded up."""
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    """Return the least multiple of `b` not below `a`."""
    return ceil_div(a, b) * b


def next_power_of_2(a: int) -> int:
    """Return the least power of two not below `a`."""
    return 1 << max(0, a - 1).bit_length()


def check(name: str, tensor: Tensor, shape: tuple[int, ...], *dtypes: torch.dtype) -> None:
    """Refuse a tensor of another shape or number format.

    Raises:
        ValueError: says which tensor, what it is and what is wanted.
    """
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name}: shape {tuple(tensor.shape)} given, {shape} is needed")
    if dtypes and tensor.dtype not in dtypes:
        wanted = " or ".join(str(d) for d in dtypes)
        raise ValueError(f"{name}: {tensor.dtype} given, {wanted} is needed")


def check_rank(name: str, tensor: Tensor, rank: int) -> None:
    """Refuse a tensor with another number of dimensions."""
    if tensor.dim() != rank:
        raise ValueError(f"{name}: {tensor.dim()} dimensions given, {rank} are needed")


def check_rows(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that the TMA unit cannot read: contiguous rows, on steps of 16 bytes."""
    if tensor.data_ptr() % 16:
        raise ValueError(f"{name}: starts off a 16-byte boundary, which TMA needs")
    if tensor.stride(-1) != 1:
        raise ValueError(
            f"{name}: last dimension must be contiguous, its stride is {tensor.stride(-1)}"
        )
    for stride in tensor.stride()[:-1]:
        if stride * tensor.element_size() % 16:
            raise ValueError(
                f"{name}: row stride of {stride} elements is no multiple of 16 bytes, "
                "which TMA needs"
            )
