"""Kernels that somebody measured, joined with the ops of a layer: by label, family and shape.

A joint is never a name: what a recipe or a block calls an op is for people, and changes. Whoever
measured says for each of his ops in which block and pass it ran, of which family it is, and the
shape of every kernel in it:

    product, attention      (m, n, k); (sequences, length, heads)
    memory-bound            (launches, bytes), bytes to `TOLERANCE`: rows that experts get are
                            expected ones here and padded ones there

Kernels of one shape stand for each other. What finds no partner is told, on both sides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from workloads.layers import Layer
from workloads.ops import COMPUTE, Attention, Comm, DecodeAttention, Gemm, MemoryOp, Op
from workloads.recipes import Phase

TOLERANCE = 0.02
PASSES: tuple[Phase, ...] = ("F", "B", "W")

Shape = tuple[float, ...]


class Kernels(NamedTuple):
    """What was measured as one op.

    Attributes:
        where: block and pass, `attn(F)`.
        name: of the measurement, for people.
        shapes: of its kernels.
    """

    where: str
    name: str
    family: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Measured ops and those of a layer.

    Attributes:
        ops: for each measured op what the layer does there, under the name of the measurement; None
            where no kernels of the layer are those.
        unmatched: measured ops without partner, as `attn(F): cast`.
        unmeasured: ops of the layer without one, likewise.
    """

    ops: tuple[Op | None, ...]
    unmatched: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What found no partner, in words."""
        return (
            *(f"measured, but not in the workload: {name}" for name in self.unmatched),
            *(f"in the workload, but not measured: {name}" for name in self.unmeasured),
        )


def compute_ops(layer: Layer) -> dict[str, list[Op]]:
    """Return the kernels of a layer's compute stream by block and pass."""
    return {
        f"{block.name}({phase})": [
            work
            for work in block.ops.of(phase)
            if not isinstance(work, Comm) and work.stream == COMPUTE
        ]
        for block in layer.blocks
        for phase in PASSES
    }


def join(ops: Mapping[str, Sequence[Op]], measured: Iterable[Kernels]) -> Joined:
    """Find the ops of every measurement.

    Args:
        ops: by block and pass; each is given to one measurement at most.
    """
    left = {where: list(some) for where, some in ops.items()}
    found: list[Op | None] = []
    unmatched: list[str] = []
    for kernels in measured:
        parts = _take(left.get(kernels.where, []), kernels)
        found.append(_together(kernels.name, parts) if parts else None)
        if not parts:
            unmatched.append(f"{kernels.where}: {kernels.name}")
    unmeasured = (f"{where}: {op.name}" for where, some in left.items() for op in some)
    return Joined(tuple(found), tuple(unmatched), tuple(unmeasured))


def shape_of(op: Op) -> Shape:
    """Return the shape that an op is known by in its label and family."""
    if isinstance(op, Gemm):
        return op.m, op.n, op.k
    if isinstance(op, Attention | DecodeAttention):
        return op.sequences, op.length, op.heads
    return op.launches, op.bytes


def _take(left: list[Op], kernels: Kernels) -> list[Op]:
    """Take the ops of all shapes out of those that are left; none if one of them is missing."""
    rest, parts = list(left), []
    for shape in kernels.shapes:
        alike = [op for op in rest if op.family == kernels.family and _fits(op, shape)]
        if not alike:
            return []
        part = min(alike, key=lambda op: abs(shape_of(op)[-1] - shape[-1]))
        rest.remove(part)
        parts.append(part)
    left[:] = rest
    return parts


def _fits(op: Op, shape: Shape) -> bool:
    *exact, last = shape_of(op)
    *wanted, size = shape
    near = TOLERANCE * size if isinstance(op, MemoryOp) else 0
    return exact == wanted and abs(last - size) <= near


def _together(name: str, parts: Sequence[Op]) -> Op:
    """Return ops as one; those of memory-bound kernels add up."""
    first = parts[0]
    if not isinstance(first, MemoryOp):
        return replace(first, name=name)
    launches = sum(op.launches for op in parts)
    return replace(first, name=name, bytes=sum(op.bytes for op in parts), launches=launches)
