"""Whether a launch finds in Triton's cache what was compiled ahead of it, without a GPU.

    python -m tests.kernels.compile.launches        prints one JSON object, see `main`

`calibration.measure.ahead` compiles for tensors without memory, under a driver that only names a
target. Here `calibration.measure.machine` launches: Triton's own path from the launcher to the
entry in the cache, whose name follows from source, specialisation, constants, options and target.
In place of the GPU stand addresses on steps of 64 bytes (CUDA's are on steps of 512), the target
that a driver names on a Hopper GPU, and a driver that loads and starts nothing.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver, jit
from triton.tools.tensor_descriptor import TensorDescriptor

from calibration.gpu_day.parts import parts
from calibration.gpu_day.sizes import RealSizes
from calibration.measure.ahead import HOPPER, HOPPER_SMS, Ahead, OfflineDriver, compile_point
from calibration.measure.machine import prepare
from calibration.measure.measurement import Point, config_text
from kernels import _device, load, names
from tests.kernels.compile.routing import draw_once

COMPILED_S = 120.0

# A kernel with TMA, one of its configurations, two kernels of one launch, inputs that come from
# another kernel, fewer SMs.
COMPILED = (
    Point("fp8_gemm", load("fp8_gemm").TINY),
    Point("fp8_gemm", load("fp8_gemm").TINY, config=config_text(load("fp8_gemm").CONFIGS[-1])),
    Point("mla_decode", load("mla_decode").TINY),
    Point("mla_prefill_backward", load("mla_prefill_backward").TINY),
    Point("rmsnorm", load("rmsnorm").TINY, mode="limited", held_sms=20),
)
NOT_COMPILED = Point("probe_copy", load("probe_copy").TINY)


class StandIn(OfflineDriver):
    """A driver that loads every kernel and starts none."""

    def __init__(self) -> None:
        super().__init__(HOPPER)
        self.launches: list[str] = []
        self.utils = SimpleNamespace(
            load_binary=lambda *_: (1, 1, 0, 0, 1024),  # handles; registers, spills; most threads
            get_device_properties=lambda _: {"max_shared_mem": 227 << 10},
        )

    def launcher_cls(self, source: Any, _metadata: Any) -> Callable[..., None]:
        """Return what in a real driver starts a kernel."""
        return lambda *_: self.launches.append(source.name)


@contextlib.contextmanager
def standing_in() -> Iterator[StandIn]:
    """Have launches meet the driver that starts nothing, and 132 SMs."""
    one = StandIn()
    driver.set_active(one)
    with mock.patch.object(_device, "OFF_GPU_SMS", HOPPER_SMS):
        yield one


def launch(point: Point, device: str) -> None:
    """Launch a point as measuring does."""
    prepare(point, torch.device(device), HOPPER_SMS - point.held_sms)()


def addressed(value: Any, shift_bytes: int = 0) -> Any:
    """Return an argument of a launch at an address of its own, in memory that nobody touches.

    A shift moves tensors off the steps of 64 bytes on which memory begins; a descriptor stays.
    """
    if isinstance(value, TensorDescriptor):
        return TensorDescriptor(
            addressed(value.base), value.shape, value.strides, value.block_shape
        )
    if not isinstance(value, Tensor):
        return value
    room = torch.UntypedStorage(value.untyped_storage().nbytes() + shift_bytes)
    assert room.data_ptr() % 64 == 0, "how PyTorch allocates on a CPU"
    offset = value.storage_offset() + shift_bytes // value.element_size()
    return torch.empty(0, dtype=value.dtype).set_(room, offset, value.size(), value.stride())


def asked(do: Callable[[], object]) -> set[str]:
    """Return what is asked of the compiler meanwhile, each as the text that names it; it does
    nothing."""
    found = set()

    def refuse(*, key: str, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        found.add(f"{fn.name} {key} {compile['specialization_data']}")
        return True

    with mock.patch.object(knobs.runtime, "jit_cache_hook", refuse):
        do()
    return found


def asked_by_launch(point: Point, shift_bytes: int = 0) -> set[str]:
    """Return what a launch asks of the compiler, with addresses so many bytes off 64."""
    with standing_in(), arguments(lambda value: addressed(value, shift_bytes)):
        return asked(lambda: launch(point, "meta"))


def takes_tensors(point: Point) -> list[bool]:
    """Return for each argument of a launch whether it is a tensor: no number and no descriptor."""
    found: list[bool] = []

    def look(value: Any) -> Any:
        found.append(isinstance(value, Tensor))
        return value

    with standing_in(), arguments(look):
        asked(lambda: launch(point, "meta"))
    return found


@contextlib.contextmanager
def arguments(change: Callable[[Any], Any]) -> Iterator[None]:
    """Have launches take other arguments than they are given."""
    run = jit.JITFunction.run

    def changed(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        return run(self, *map(change, args), grid=grid, warmup=warmup, **kwargs)

    with mock.patch.object(jit.JITFunction, "run", changed):
        yield


def asked_ahead(point: Point) -> set[str]:
    """Return what is asked of the compiler ahead of a launch."""
    why_not: list[str] = []
    found = asked(lambda: why_not.append(compile_point(point, HOPPER.arch, HOPPER_SMS)))
    assert why_not == [""], why_not
    return found


def of_a_day() -> list[Point]:
    """Return every point of ours that a GPU day measures or checks, each once."""
    sizes = RealSizes()
    points = [point for part in parts().values() for point in part.points(sizes)]
    points += parts()["sweep"].checked(sizes)
    distinct = {(str(p.shape), p.kernel, p.config, p.held_sms): p for p in points}
    return [point for point in distinct.values() if point.provider == "moesim"]


def missed(points: Sequence[Point]) -> tuple[list[str], int]:
    """Return the kernels that launching `points` had to compile, and how many it launched.

    Before, `COMPILED` are compiled ahead, in processes of their own and a cache of their own.
    """
    found: list[str] = []

    def listen(*, src: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            found.append(src.name)

    ahead = Ahead(COMPILED, HOPPER.arch, HOPPER_SMS, workers=1)
    try:
        states = {ahead.wait(point, COMPILED_S) for point in COMPILED}
        assert states == {"compiled"}, states
    finally:
        ahead.close()
    with standing_in() as device, mock.patch.object(knobs.compilation, "listener", listen):
        for point in points:
            launch(point, "cpu")
    return found, len(device.launches)


def main() -> None:
    """Print triton; points of a day compared, and those whose launch asks for something else than
    was compiled ahead; ops that take tensors, and those of them whose launch off 16 bytes asks for
    the same; kernels launched of those compiled ahead, those of them that were compiled again; and
    those of one that was not."""
    points = of_a_day()
    different = [
        str(point) for point in points if not asked_by_launch(point) <= asked_ahead(point) != set()
    ]
    first = {point.kernel: point for point in reversed(points)}
    moved = [name for name in names() if any(takes_tensors(first[name]))]
    blind = [name for name in moved if asked_by_launch(first[name], 8) <= asked_ahead(first[name])]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        again, launched = missed(COMPILED)
        new, _ = missed([NOT_COMPILED])
    told = {
        "triton": triton.__version__,
        "points": len(points),
        "different": different,
        "moved": len(moved),
        "blind": blind,
        "launched": launched,
        "compiled_again": again,
        "not_compiled_before": new,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    draw_once()
    main()
