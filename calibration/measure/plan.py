"""What to measure: the ops that will be priced, and a design that identifies the cost model.

A plan is a list of points. Ops come first, as plain records `{kernel, shape, mode}`: what is priced
must have been measured. Then, per family of GEMMs, 24 anchors each of which one constant dominates,
and shapes drawn over the model's own sites; attention over heads, batch and context; grouped
products with their experts' counts; element-wise kernels on both sides of the L2. A few of each run
again on fewer SMs and beside a copying kernel.

Why these and how many: "Calibration run" of the kernel-cost study. Pure D-optimal designs fit
corners; anchors plus stratified shapes do as well or better.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from calibration.measure.measurement import Point, points_as_json
from hwmodels.errors import CalibrationError

HOPPER_SMS = 132
"""Of an H100, H800 or H200."""

HELD_SMS = 20
"""SMs that communication takes from them in DeepSeek-V3's training."""

LIMITED_SMS = (20, 66)
"""SMs held by idle programs in the SM-limited runs: 112 and 66 of 132 are left."""

# (m, n, k), 24 of them: the constant of the cost model that each is there for.
GEMM_ANCHORS = (
    (1, 64, 64),  # launch and fixed time
    (16, 32, 4096), (16, 64, 16384), (16, 64, 65536),  # latency of a k-step
    (16, 64, 6144), (8, 32, 12288),  # split k
    (4, 65536, 8192), (16, 65536, 8192),  # HBM bandwidth
    (1, 512, 4096), (8, 2048, 4096), (4, 4096, 4096),  # memory parallelism of an SM
    (64, 4096, 7168), (128, 4096, 7168), (256, 4096, 7168),  # L2 and shared memory
    (4096, 65536, 128), (32768, 7168, 32),  # time per tile
    (2816, 2816, 12288), (4096, 12288, 12288),  # sustained rate
    (8192, 32, 12288), (32768, 64, 12288),  # tall and thin: what grows with m k
    (1024, 7168, 7168), (1152, 7168, 7168), (1153, 7168, 7168),  # waves
    (4096, 24576, 1536),  # promotion, against bf16 of the same shape
)  # fmt: skip
SUSTAINED_FLOPS = 1.5e11  # anchors of more work than this also run until the clock has settled

M_STRATA = ((1, 16), (17, 256), (257, 4096), (4097, 32768))
LARGEST_FLOPS = 6e12  # of one run; about 10 ms on an H100-class GPU
LARGEST_BYTES = 16e9

GEMM_FAMILIES = ("bf16_gemm", "fp8_gemm", "fp8_wgrad")
HEADS = (1, 16, 64, 128)
HIDDEN = 7168
ELEMENT_WISE = ("quantize", "cast_transpose", "swiglu", "swiglu_backward", "rmsnorm",
                "rmsnorm_backward", "router", "moe_map", "moe_permute", "moe_unpermute",
                "probe_copy")  # fmt: skip
BESIDE = ("fp8_gemm", "grouped_gemm", "fp8_wgrad", "mla_prefill", "mla_prefill_backward",
          "quantize", "cast_transpose", "swiglu", "rmsnorm", "rmsnorm_backward", "router", "rope",
          "moe_permute", "moe_unpermute")  # fmt: skip


def plan(
    ops: Sequence[Mapping[str, Any]] = (), *, quick: bool = False, seed: int = 0
) -> list[Point]:
    """Return the points: `ops`, then the design; each once.

    Args:
        ops: records with `kernel`, `shape` and, if it is not isolated, `mode`; those without a
            `provider` are measured with ours and, isolated, with every other.
        quick: a fifth of the design, for under a minute of device time.
        seed: of the random part.

    Raises:
        CalibrationError: a record is wrong; says which.
    """
    random = np.random.default_rng(seed)
    points = [
        *(op_point(op) for op in ops),
        *(op_point(op) for op in by_others(ops)),
        *gemm_points(sites(ops), random, quick=quick),
        *grouped_points(random, count=8 if quick else 40),
        *decode_points(random, count=10 if quick else 50),
        *prefill_points(random, count=6 if quick else 35),
        *element_wise_points(count=3 if quick else 10),
        *shared_points(quick=quick),
    ]
    return list({point.key: point for point in points}.values())


def by_others(ops: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the isolated ops once more for every provider beside ours."""
    from kernels import load  # noqa: PLC0415 - imports torch and triton

    for op in ops:
        if op.get("mode", "isolated") == "isolated" and "provider" not in op:
            for provider in load(op["kernel"]).PROVIDERS:
                if provider != "moesim":
                    yield {**op, "provider": provider}


def op_point(op: Mapping[str, Any]) -> Point:
    """Return the point of one record.

    Raises:
        CalibrationError: a key is missing or unknown, or the mode is.
    """
    unknown = set(op) - {"kernel", "shape", "mode", "provider"}
    if unknown or not {"kernel", "shape"} <= set(op):
        raise CalibrationError(f"op {dict(op)}: keys kernel, shape and perhaps mode, provider")
    mode = op.get("mode", "isolated")
    held = 0 if mode == "isolated" else HELD_SMS
    return Point(op["kernel"], op["shape"], op.get("provider", "moesim"), mode, held)


def sites(ops: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return (n, k) of the products among `ops`, or those of DeepSeek-V3 if there are none."""
    found = {
        (int(op["shape"]["n"]), int(op["shape"]["k"]))
        for op in ops
        if op["kernel"] in {"fp8_gemm", "bf16_gemm", "grouped_gemm"}
    }
    v3 = [(1536, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168),
          (7168, 2048), (16384, 7168)]  # fmt: skip
    return sorted(found) or v3


def gemm_points(
    where: Sequence[tuple[int, int]], random: np.random.Generator, *, quick: bool
) -> Iterator[Point]:
    """Yield anchors and stratified shapes of every GEMM family."""
    anchors = GEMM_ANCHORS[::2] if quick else GEMM_ANCHORS
    for kernel in GEMM_FAMILIES:
        drawn = stratified(where, random, 12 if quick else 100)
        for m, n, k in (*anchors, *drawn):
            shape = gemm_shape(kernel, m, n, k)
            yield Point(kernel, shape)
            if (m, n, k) in anchors and 2 * m * n * k > SUSTAINED_FLOPS:
                yield Point(kernel, shape, sustained=True)


def gemm_shape(kernel: str, m: int, n: int, k: int) -> dict[str, Any]:
    """Return (m, n, k) as the kernel names it; a weight gradient sums over k tokens."""
    if kernel == "fp8_wgrad":
        return {"counts": (k,), "m": m, "n": round_to(n, 4)}
    return {"m": m, "n": n, "k": k}


def stratified(
    where: Sequence[tuple[int, int]], random: np.random.Generator, count: int
) -> Iterator[tuple[int, int, int]]:
    """Yield shapes: m log-uniform in each of four strata, (n, k) a site or its neighbour."""
    made = 0
    while made < count:
        low, high = M_STRATA[made % len(M_STRATA)]
        n, k = where[int(random.integers(len(where)))]
        n = round_to(n * 1.5 ** random.integers(-1, 2), 64)
        k = round_to(k * 1.5 ** random.integers(-1, 2), 128)
        m = int(np.exp(random.uniform(np.log(low), np.log(high + 1))))
        if 2.0 * m * n * k <= LARGEST_FLOPS:
            made += 1
            yield m, n, k


def grouped_points(random: np.random.Generator, count: int) -> Iterator[Point]:
    """Yield grouped products, and every fourth time their weight gradient, with recorded counts."""
    for number in range(count):
        groups = int(random.choice((1, 2, 4, 8, 16, 32)))
        n, k = ((4096, 7168), (7168, 2048))[number % 2]
        mean = np.exp(random.uniform(np.log(4), np.log(32768 / groups)))
        spread = random.choice((0.0, 0.08, 0.5))
        counts = tuple(
            int(c)
            for c in random.poisson(mean * random.lognormal(-(spread**2) / 2, spread, groups))
        )
        if sum(counts) == 0:
            counts = (1, *counts[1:])
        if number % 4 == 3:
            yield Point("fp8_wgrad", {"counts": counts, "m": n, "n": k})
        else:
            masked = int(mean <= 256)
            yield Point("grouped_gemm", {"counts": counts, "n": n, "k": k, "masked": masked})


def decode_points(random: np.random.Generator, count: int) -> Iterator[Point]:
    """Yield decode attention over heads, batch 1 to 1024 and context 256 to 131072."""
    made = 0
    while made < count:
        heads = HEADS[made % len(HEADS)]
        batch = int(2 ** random.uniform(0, 10))
        length = int(2 ** random.uniform(8, 17))
        tokens = float(batch) * length
        if tokens * 1152 <= LARGEST_BYTES and 2 * heads * tokens * 1088 <= LARGEST_FLOPS:
            made += 1
            ragged = int(random.integers(4) == 0)
            shape = {"batch": batch, "heads": heads, "length": length, "ragged": ragged}
            yield Point("mla_decode", shape)


def prefill_points(random: np.random.Generator, count: int) -> Iterator[Point]:
    """Yield training attention, forward and every third time backward."""
    made = 0
    while made < count:
        heads = HEADS[1 + made % 3]
        batch = int(2 ** random.uniform(0, 4))
        length = int(2 ** random.uniform(8, 14))
        if batch * heads * float(length) ** 2 * 320 <= LARGEST_FLOPS:
            kernel = "mla_prefill_backward" if made % 3 == 2 else "mla_prefill"
            made += 1
            yield Point(kernel, {"batch": batch, "length": length, "heads": heads})


def element_wise_points(count: int) -> Iterator[Point]:
    """Yield each element-wise kernel at `count` sizes, from far inside the L2 to far outside."""
    rows = np.unique(np.geomspace(64, 65536, count).round().astype(int))
    for kernel in ELEMENT_WISE:
        for m in rows:
            yield Point(kernel, element_wise_shape(kernel, int(m)))
    yield Point("probe_launch", {"launches": 1})
    yield Point("probe_launch", {"launches": 100})
    for format_ in ("bf16", "fp8"):
        shape = {"format": format_, "programs": 132, "steps": 1024}
        yield Point("probe_tensor_rate", shape)
        yield Point("probe_tensor_rate", shape, sustained=True)


def element_wise_shape(kernel: str, m: int) -> dict[str, Any]:
    """Return a shape of `m` rows of DeepSeek-V3's hidden state, or what comes nearest."""
    route = {"tokens": m, "rows": m, "top_k": 8, "experts": 4, "hidden": HIDDEN}
    return {
        "quantize": {"m": m, "k": HIDDEN},
        "cast_transpose": {"m": m, "k": HIDDEN, "from_fp8": 0},
        "swiglu": {"rows": m, "width": 2048, "quantize": 1},
        "rmsnorm": {"m": m, "k": HIDDEN, "residual": 1},
        "rmsnorm_backward": {"m": m, "k": HIDDEN, "residual": 1},
        "router": {"tokens": m, "experts": 256, "groups": 8, "groups_kept": 4, "top_k": 8},
        "moe_permute": route | {"fp8": 1},
        "moe_unpermute": route | {"weighted": 1},
        "swiglu_backward": {"rows": m, "width": 2048, "recompute": 1},
        "moe_map": {name: route[name] for name in ("tokens", "rows", "top_k", "experts")},
        "probe_copy": {"bytes": m * HIDDEN * 2},
    }[kernel]


def shared_points(*, quick: bool) -> Iterator[Point]:
    """Yield the first shapes of each op alone, on fewer SMs, and beside a copying kernel."""
    from kernels import load  # noqa: PLC0415 - imports torch, which planning else does not need

    for kernel in BESIDE:
        for shape in load(kernel).SHAPES[: 1 if quick else 2]:
            yield Point(kernel, shape)
            for held in LIMITED_SMS:
                yield Point(kernel, shape, mode="limited", held_sms=held)
            yield Point(kernel, shape, mode="beside", held_sms=HELD_SMS)
    for held in (112, 124, 128):  # what a copy reaches on 20, 8 and 4 SMs of 132
        yield Point("probe_copy", {"bytes": 1 << 28}, mode="limited", held_sms=held)


def round_to(value: float, step: int) -> int:
    """Return the nearest positive multiple of `step`."""
    return max(step, int(value / step + 0.5) * step)


# Rates and costs of an H100-class GPU, to say beforehand how long a plan will take; no price is
# ever made from them.
ASSUMED_FLOPS_PER_S = 4e14
ASSUMED_BYTES_PER_S = 2e12
ASSUMED_OVERHEAD_S = 150e-6  # of a timed run: flush of the L2 and the pause before it
INPUT_PASSES = 20  # over a kernel's bytes, to draw and quantise its inputs
TIMED_S, SUSTAINED_S = 0.05, 0.6  # as in calibration.measure.timing


def device_time_s(points: Iterable[Point]) -> float:
    """Estimate the device time of a plan, compilation excluded.

    Raises:
        CalibrationError: a point names no kernel, or its shape lacks something.
    """
    from kernels import load  # noqa: PLC0415

    total_s = 0.0
    for point in points:
        try:
            flops, bytes_ = load(point.kernel).work(dict(point.shape))
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"plan: {point.kernel} {dict(point.shape)}: {error}") from error
        once_s = 5e-6 + max(flops / ASSUMED_FLOPS_PER_S, bytes_ / ASSUMED_BYTES_PER_S)
        repeats = max(3, min(point.repeats, int(TIMED_S / once_s)))
        warm_s = 8 * once_s + INPUT_PASSES * bytes_ / ASSUMED_BYTES_PER_S
        timed_s = SUSTAINED_S if point.sustained else repeats * (once_s + ASSUMED_OVERHEAD_S)
        total_s += warm_s + timed_s
    return total_s


def plan_text(points: list[Point]) -> str:
    """Return the plan as the text of its file."""
    return points_as_json(points, device_time_s(points))
