"""The numbers people ask of a training step; pure functions of a run."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hwmodels.spec import Spec
from simulator.lower.played import Played
from simulator.price.finite import check_finite
from simulator.price.segments import OpSeconds

SECONDS_PER_DAY = 86400.0


class ChunkMetrics(Spec):
    """One distinct chunk, played on a whole expert group; means over the draws of its load.

    Always of folded play: GPUs alike, no jitter, nothing else on their NICs.

    Attributes:
        name: kind and stages, such as `FB 1|1`.
        duration_s: until the slowest rank is done.
        compute_s, communication_s: mean over ranks, work only.
        mean_wait_s: mean wait of a rank for the others, per exchange.
    """

    name: str
    duration_s: float
    compute_s: float
    communication_s: float
    mean_wait_s: float


class Metrics(Spec):
    """What one training step achieved.

    Attributes:
        tokens_per_s_per_gpu: of the GPUs that the plan takes.
        tflops_causal, tflops_noncausal: model TFLOP/s of one of them; recomputation, MTP and router
            are not counted (ISCA'25, arXiv 2505.09343, Table 4), attention as lower triangle or
            full square.
        mfu_causal, mfu_noncausal: their share of the chip's dense BF16 peak.
        breakdown_s: mean over pipeline ranks; the phases sum to the step.
        breakdown_by_rank_s: the same by pipeline rank.
        compute_share: of all compute seconds of a pipeline, by kernel family, largest first.
        memory_bytes: terms of the fullest rank, and their `total`.
        memory_by_rank_bytes: total by pipeline rank.
    """

    step_time_s: float
    tokens_per_day: float
    tokens_per_s_per_gpu: float
    tflops_causal: float
    tflops_noncausal: float
    mfu_causal: float
    mfu_noncausal: float
    breakdown_s: dict[str, float]
    breakdown_by_rank_s: dict[str, tuple[float, ...]]
    compute_share: dict[str, float]
    memory_bytes: dict[str, float]
    memory_by_rank_bytes: tuple[float, ...]
    chunks: tuple[ChunkMetrics, ...]


def model_flops_per_s(played: Played, tokens_per_s_per_gpu: float, *, causal: bool) -> float:
    """Return model FLOP/s of one GPU at a token rate."""
    experiment = played.experiment
    length = experiment.batch.sequence_length
    return tokens_per_s_per_gpu * experiment.model.flops_per_token(length, causal=causal)


def metrics(played: Played) -> Metrics:
    """Return the metrics of a run.

    Raises:
        InfeasibleError: one of them is not finite.
    """
    experiment, times = played.experiment, played.times
    chip = experiment.cluster.node.chip
    tokens_per_s = experiment.batch.tokens / times.step_s
    per_gpu = tokens_per_s / experiment.gpus
    causal = model_flops_per_s(played, per_gpu, causal=True)
    noncausal = model_flops_per_s(played, per_gpu, causal=False)
    peak = chip.tensor_flops_per_s("bf16")
    totals = tuple(sum(terms.values()) for terms in played.program.memory_bytes)
    fullest = played.program.memory_bytes[totals.index(max(totals))]
    step_metrics = Metrics(
        step_time_s=times.step_s,
        tokens_per_day=tokens_per_s * SECONDS_PER_DAY,
        tokens_per_s_per_gpu=per_gpu,
        tflops_causal=causal / 1e12,
        tflops_noncausal=noncausal / 1e12,
        mfu_causal=causal / peak,
        mfu_noncausal=noncausal / peak,
        breakdown_s={name: float(seconds.mean()) for name, seconds in times.phases.items()},
        breakdown_by_rank_s={name: tuple(map(float, s)) for name, s in times.phases.items()},
        compute_share=shares(played, lambda timed_op: timed_op.op.family),
        memory_bytes=fullest | {"total": max(totals)},
        memory_by_rank_bytes=totals,
        chunks=_chunk_metrics(played),
    )
    flat = dict(_flat(step_metrics.model_dump()))
    check_finite(list(flat.values()), lambda place: list(flat)[place])
    return step_metrics


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield (dotted path, number) of all numbers in nested values."""
    if isinstance(values, int | float):
        yield path.removeprefix("."), float(values)
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{path}.{key}")
    elif isinstance(values, tuple):
        for place, value in enumerate(values):
            yield from _flat(value, f"{path}.{place}")


def shares(played: Played, key: Callable[[OpSeconds], str]) -> dict[str, float]:
    """Return shares of the compute time of a pipeline by `key`, the largest first."""
    total: dict[str, float] = {}
    for timed_op in played.op_seconds:
        total[key(timed_op)] = total.get(key(timed_op), 0.0) + timed_op.seconds
    whole = sum(total.values())
    ordered = sorted(total.items(), key=lambda item: -item[1])
    return {name: seconds / whole for name, seconds in ordered}


def _chunk_metrics(played: Played) -> tuple[ChunkMetrics, ...]:
    names = [part.graph.part.name for part in played.lowered.parts.values()]
    return tuple(
        ChunkMetrics(
            name=name,
            duration_s=duration_s,
            compute_s=compute_s,
            communication_s=communication_s,
            mean_wait_s=wait_s,
        )
        for name, duration_s, compute_s, communication_s, wait_s in zip(
            names, *(column.tolist() for column in played.folded.means), strict=True
        )
    )
