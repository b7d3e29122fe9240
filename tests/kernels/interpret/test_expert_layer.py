"""A whole expert layer by our kernels, forward and weight gradient, against float64."""

import torch

from kernels import (
    cast_transpose,
    fp8_wgrad,
    grouped_gemm,
    moe_map,
    moe_permute,
    moe_unpermute,
    quantize,
    router,
    swiglu,
)
from kernels._numerics import normal, quantize_blocks

TOKENS, HIDDEN, WIDTH, EXPERTS, TOP_K = 24, 256, 128, 4, 2


def test_expert_layer() -> None:
    x = normal((TOKENS, HIDDEN), "cpu", 0)
    up = normal((EXPERTS, 2 * WIDTH, HIDDEN), "cpu", 1, torch.float32) / HIDDEN**0.5
    down = normal((EXPERTS, HIDDEN, WIDTH), "cpu", 2, torch.float32) / WIDTH**0.5
    logits = normal((TOKENS, EXPERTS), "cpu", 3, torch.float32)
    logits[:, 3] = -30.0  # an expert nobody chooses
    chosen, weights = router.launch(
        logits, torch.zeros(EXPERTS), groups=1, groups_kept=1, top_k=TOP_K
    )
    rows, starts, counts = moe_map.launch(chosen, EXPERTS)
    assert int(counts[3]) == 0
    capacity = int((counts + 127).div(128, rounding_mode="floor").sum()) * 128
    tokens, scales = quantize.launch(x)
    where = (rows, starts, counts, capacity)
    a, sa = moe_permute.launch(tokens, *where, scale=scales)
    h = grouped_gemm.launch(a, sa, *quantize_blocks(up), starts, counts, align=128)
    g, sg = swiglu.launch(h, quantize=True)
    y = grouped_gemm.launch(g, sg, *quantize_blocks(down), starts, counts, align=128)
    out = moe_unpermute.launch(y, rows, weights)

    want = torch.zeros(TOKENS, HIDDEN, dtype=torch.float64)
    for t in range(TOKENS):
        for e, weight in zip(chosen[t].tolist(), weights[t].double(), strict=True):
            gate, lift = (up[e].double() @ x[t].double()).chunk(2)
            want[t] += weight * (down[e].double() @ (torch.nn.functional.silu(gate) * lift))
    # Two FP8 products and three FP8 casts: about the error of a cast, several times.
    error = float((out.double() - want).norm() / want.norm())
    assert error < 0.1

    # Weight gradient of `up`: h stands in for its own gradient, x comes from its FP8 rows.
    d_t, x_t = cast_transpose.launch(h)[2:], cast_transpose.launch(a, sa)
    grad = torch.zeros(EXPERTS, 2 * WIDTH, HIDDEN)
    fp8_wgrad.launch(*d_t, *x_t, starts, counts, grad)
    assert grad[3].abs().max() == 0
    for e in range(3):
        mine = slice(int(starts[e]), int(starts[e] + counts[e]))
        x_rows = torch.zeros(int(counts[e]), HIDDEN, dtype=torch.float64)
        for t, j in (rows >= 0).nonzero().tolist():
            if chosen[t, j] == e:
                x_rows[int(rows[t, j]) - mine.start] = x[t].double()
        right = h[mine].double().T @ x_rows
        assert float((grad[e].double() - right).norm() / right.norm()) < 0.1
