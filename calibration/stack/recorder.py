"""Writes a tape: finds each kernel's shape in the buffers it reads, and makes room for its results.

A quantised buffer `x8` has its scales beside it in `x8.scale`; `x8.t` and `x8.t.scale` are what
`cast_transpose` makes of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from calibration.stack.tape import Run, Step, Tape
from kernels import (
    bf16_gemm,
    cast_transpose,
    fp8_gemm,
    fp8_wgrad,
    grouped_gemm,
    quantize,
    rmsnorm,
    rmsnorm_backward,
    swiglu,
    swiglu_backward,
)
from kernels._device import BLOCK, FP8, ceil_div
from kernels._numerics import generator, normal, quantize_blocks, quantize_rows

BF16, FP32, INT32 = torch.bfloat16, torch.float32, torch.int32


class Recorder:
    """Steps so far, and the buffers they need.

    Attributes:
        buffers, device: what there is, and where.
    """

    def __init__(self, device: torch.device, before: Tape | None = None) -> None:
        """Begin a tape, or one that follows `before` and works on its buffers."""
        self.device = device
        # For its shapes alone: nothing may be computed there, which would load half of PyTorch.
        self._nowhere = device.type == "meta"
        self.buffers: dict[str, Tensor] = {} if before is None else dict(before.buffers)
        self._given: set[str] = set() if before is None else set(before.held)
        self._steps: list[Step] = []
        self._where = ""
        self._seed = len(self.buffers)

    def tape(self) -> Tape:
        """Return what was recorded."""
        return Tape(self.buffers, self._given, self._steps)

    # Buffers.

    def give(self, name: str, tensor: Tensor) -> None:
        """Take a buffer that holds something before the tape is played; small ones from the CPU."""
        self.buffers[name] = tensor.to(self.device)
        self._given.add(name)

    def give_normal(self, name: str, *shape: int, scale: float = 1.0) -> None:
        """Give normal random numbers in BF16."""
        drawn = self._drawn(shape)
        self.give(name, drawn if self._nowhere else drawn.mul_(scale))

    def give_quantized(self, name: str, rows: int, columns: int, *, by_row: bool) -> None:
        """Give normal random rows in FP8; each row's scales side by side, or as a product wants
        them, column by column.
        """
        if self._nowhere:
            values, scale = quantize.empty_quantized(rows, columns, self.device)
        else:
            values, scale = quantize_rows(self._drawn((rows, columns)))
        self.give(name, values)
        self.give(f"{name}.scale", scale.contiguous() if by_row else scale)

    def give_weight(self, name: str, n: int, k: int, *, experts: int = 0) -> None:
        """Give a weight in FP8 that keeps the variance of what it is multiplied with.

        Beside it the transposed copy that an input gradient needs: kept, not made in every pass.
        """
        shape = (experts, n, k) if experts else (n, k)
        if self._nowhere:
            scales = (*shape[:-2], ceil_div(n, BLOCK), ceil_div(k, BLOCK))
            values = torch.empty(shape, dtype=FP8, device=self.device)
            scale = torch.empty(scales, dtype=FP32, device=self.device)
        else:
            values, scale = quantize_blocks(self._drawn(shape).float().mul_(k**-0.5))
        for suffix, made in (("", (values, scale)), (".t", (values.mT, scale.mT))):
            self.give(f"{name}{suffix}", made[0].contiguous())
            self.give(f"{name}{suffix}.scale", made[1].contiguous())

    def room(self, name: str, *shape: int, dtype: torch.dtype = BF16) -> None:
        """Make room for a result, unless there is some."""
        self.keep(name, torch.empty(shape, dtype=dtype, device=self.device))

    def keep(self, name: str, tensor: Tensor) -> None:
        """Take `tensor` as the room for a result, unless there is some.

        It is filled with random numbers: a step that is left out for being wrong then leaves
        something behind that those after it can work on.
        """
        if name not in self.buffers:
            self.buffers[name] = self._filled(tensor)

    def _drawn(self, shape: tuple[int, ...]) -> Tensor:
        if self._nowhere:
            return torch.empty(shape, dtype=BF16, device=self.device)
        self._seed += 1
        return normal(shape, self.device, self._seed)

    def _filled(self, tensor: Tensor) -> Tensor:
        if self._nowhere:
            return tensor
        if tensor.dtype == FP8:
            return tensor.copy_(self._drawn(tuple(tensor.shape)))
        if not tensor.is_floating_point():
            return tensor.zero_()
        self._seed += 1
        return tensor.normal_(generator=generator(self.device, self._seed))

    # Steps.

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Record steps of one block and pass meanwhile."""
        before, self._where = self._where, where
        yield
        self._where = before

    def step(
        self,
        op: str,
        kernel: str,
        shape: Mapping[str, Any],
        run: Run,
        reads: Sequence[str],
        writes: Sequence[str],
    ) -> None:
        """Record a step whose buffers are there."""
        self._steps.append(
            Step(op, self._where, kernel, dict(shape), run, tuple(reads), tuple(writes))
        )

    def norm(
        self, op: str, x: str, weight: str, out: str, *, residual: str = "", total: str = ""
    ) -> None:
        """Record an RMS norm of the first columns of `x`, as many as the weight has."""
        m, k = self.buffers[x].shape[0], self.buffers[weight].shape[0]
        self.room(out, m, k)
        self.room(f"{out}.rstd", m, dtype=FP32)
        if residual:
            self.room(total, m, k)
        self.step(
            op, "rmsnorm", {"m": m, "k": k, "residual": int(bool(residual))},
            lambda r, w: rmsnorm.launch(r[0][:, :k], *r[1:], out=tuple(w)),
            (x, weight, *([residual] if residual else [])),
            (out, f"{out}.rstd", *([total] if residual else [])),
        )  # fmt: skip

    def norm_backward(
        self, op: str, x: str, normed: str, weight: str, dy: str, dx: str, *, residual: str = ""
    ) -> None:
        """Record the gradient of a norm, which fills the first columns of `dx`."""
        m, k = self.buffers[x].shape[0], self.buffers[weight].shape[0]
        self.room(dx, m, k)
        self.room(f"d.{weight}", k, dtype=FP32)
        self.step(
            op, "rmsnorm_backward", {"m": m, "k": k, "residual": int(bool(residual))},
            lambda r, w: rmsnorm_backward.launch(
                r[0][:, :k], *r[1:], out=(w[0][:, :k], w[1])
            ),
            (x, f"{normed}.rstd", weight, dy, *([residual] if residual else [])),
            (dx, f"d.{weight}"),
        )  # fmt: skip

    def cast(self, op: str, x: str, out: str) -> None:
        """Record a cast to FP8 along rows."""
        m, k = self.buffers[x].shape
        self._keep_quantized(out, *quantize.empty_quantized(m, k, self.device))
        self.step(
            op, "quantize", {"m": m, "k": k},
            lambda r, w: quantize.launch(r[0], out=tuple(w)),
            (x,), (out, f"{out}.scale"),
        )  # fmt: skip

    def linear(self, op: str, x: str, weight: str, out: str) -> None:
        """Record an FP8 product with a weight."""
        (m, k), n = self.buffers[x].shape, self.buffers[weight].shape[0]
        self.room(out, m, n)
        self.step(
            op, "fp8_gemm", {"m": m, "n": n, "k": k},
            lambda r, w: fp8_gemm.launch(*r, out=w[0]),
            (x, f"{x}.scale", weight, f"{weight}.scale"), (out,),
        )  # fmt: skip

    def plain_linear(self, op: str, a: str, b: str, out: str) -> None:
        """Record a BF16 product."""
        (m, k), n = self.buffers[a].shape, self.buffers[b].shape[0]
        self.room(out, m, n)
        self.step(
            op, "bf16_gemm", {"m": m, "n": n, "k": k},
            lambda r, w: bf16_gemm.launch(*r, out=w[0]), (a, b), (out,),
        )  # fmt: skip

    def grouped(
        self, op: str, x: str, weight: str, out: str, counts: tuple[int, ...], *, masked: bool
    ) -> None:
        """Record an FP8 product of each expert's rows with its weight."""
        (rows, k), n = self.buffers[x].shape, self.buffers[weight].shape[1]
        self.room(out, rows, n)
        self.step(
            op, "grouped_gemm", {"counts": counts, "n": n, "k": k, "masked": int(masked)},
            lambda r, w: grouped_gemm.launch(*r, align=1 if masked else BLOCK, out=w[0]),
            (x, f"{x}.scale", weight, f"{weight}.scale", "starts", "counts"), (out,),
        )  # fmt: skip

    def transpose(self, op: str, x: str) -> None:
        """Record the cast of FP8 rows along the other axis, for a weight gradient."""
        m, k = self.buffers[x].shape
        made = cast_transpose.empty_outputs(m, k, self.device, from_fp8=True)
        self._keep_quantized(f"{x}.t", *made)
        self.step(
            op, "cast_transpose", {"m": m, "k": k, "from_fp8": 1},
            lambda r, w: cast_transpose.launch(*r, out=tuple(w)),
            (x, f"{x}.scale"), (f"{x}.t", f"{x}.t.scale"),
        )  # fmt: skip

    def cast_and_transpose(self, op: str, x: str, out: str) -> None:
        """Record the cast of BF16 rows along both axes."""
        m, k = self.buffers[x].shape
        made = cast_transpose.empty_outputs(m, k, self.device, from_fp8=False)
        self._keep_quantized(out, *made[:2])
        self._keep_quantized(f"{out}.t", *made[2:])
        self.step(
            op, "cast_transpose", {"m": m, "k": k, "from_fp8": 0},
            lambda r, w: cast_transpose.launch(r[0], out=tuple(w)),
            (x,), (out, f"{out}.scale", f"{out}.t", f"{out}.t.scale"),
        )  # fmt: skip

    def weight_gradient(
        self, op: str, left: str, right: str, gradient: str, counts: tuple[int, ...],
        places: tuple[str, str],
    ) -> None:  # fmt: skip
        """Record what is added to a weight's gradient, (groups, m, n) of `left` and `right`."""
        m, n = self.buffers[left].shape[1], self.buffers[right].shape[1]
        if gradient not in self.buffers:
            gradients = (len(counts), m, n)
            self.give(gradient, torch.zeros(gradients, dtype=FP32, device=self.device))
        operands = (f"{left}.t", f"{left}.t.scale", f"{right}.t", f"{right}.t.scale")
        self.step(
            op, "fp8_wgrad", {"counts": counts, "m": m, "n": n},
            lambda r, w: fp8_wgrad.launch(r[0], r[1], r[2], r[3], r[4], r[5], w[0]),
            (*operands, *places, gradient), (gradient,),
        )  # fmt: skip

    def swiglu(self, op: str, x: str, out: str) -> None:
        """Record SwiGLU with its cast to FP8."""
        rows, width = self.buffers[x].shape[0], self.buffers[x].shape[1] // 2
        self._keep_quantized(out, *quantize.empty_quantized(rows, width, self.device))
        self.step(
            op, "swiglu", {"rows": rows, "width": width, "quantize": 1},
            lambda r, w: swiglu.launch(r[0], quantize=True, out=tuple(w)),
            (x,), (out, f"{out}.scale"),
        )  # fmt: skip

    def swiglu_backward(self, op: str, x: str, dy: str, dx: str, again: str) -> None:
        """Record the gradient of SwiGLU, which makes its result again."""
        rows, width = self.buffers[dy].shape
        self.room(dx, rows, 2 * width)
        self.room(again, rows, width)
        self.step(
            op, "swiglu_backward", {"rows": rows, "width": width, "recompute": 1},
            lambda r, w: swiglu_backward.launch(r[0], r[1], w[1], out=w[0]),
            (x, dy), (dx, again),
        )  # fmt: skip

    def add(self, op: str, a: str, b: str, out: str) -> None:
        """Record a sum, by the library."""
        m, k = self.buffers[a].shape
        self.room(out, m, k)
        self.step(
            op, "torch.add", {"m": m, "k": k},
            lambda r, w: torch.add(*r, out=w[0]), (a, b), (out,),
        )  # fmt: skip

    def _keep_quantized(self, name: str, values: Tensor, scale: Tensor) -> None:
        self.keep(name, values)
        self.keep(f"{name}.scale", scale)
