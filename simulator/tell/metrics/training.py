"""The numbers people ask of a training step; pure functions of a played step."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from simulator.experiment import Experiment
from simulator.lower.played import Played
from simulator.price.finite import check_finite
from simulator.tell.headlines import Headline
from simulator.tell.metrics import Metrics

SECONDS_PER_DAY, SECONDS_PER_HOUR = 86400.0, 3600.0


class Training(Metrics):
    """What one training step achieved.

    Attributes:
        tokens_per_s_per_gpu: of the GPUs that the plan takes.
        tflops_causal, tflops_noncausal: model TFLOP/s of one of them; recomputation, MTP and router
            are not counted (ISCA'25, arXiv 2505.09343, Table 4), attention as lower triangle or
            full square.
        mfu_causal, mfu_noncausal: their share of the chip's dense BF16 peak.
    """

    headline: ClassVar[tuple[Headline, ...]] = (
        Headline("step_time_s", "step time", "s", "less"),
        Headline("tokens_per_day", "tokens per day", "tokens/day", "more"),
        Headline("tokens_per_s_per_gpu", "throughput per GPU", "tokens/s", "more"),
        Headline("tflops_causal", "FLOP rate per GPU, causal", "TFLOP/s", "more"),
        Headline("tflops_noncausal", "FLOP rate per GPU, full square", "TFLOP/s", "more"),
        Headline("mfu_causal", "MFU, causal", "share", "more"),
        Headline("mfu_noncausal", "MFU, full square", "share", "more"),
    )

    kind: Literal["training"] = "training"
    step_time_s: float
    tokens_per_day: float
    tokens_per_s_per_gpu: float
    tflops_causal: float
    tflops_noncausal: float
    mfu_causal: float
    mfu_noncausal: float

    @classmethod
    def of(cls, played: Played) -> "Training":
        """Return the metrics of a training step.

        Raises:
            InfeasibleError: one of them is not finite.
        """
        return cls.of_step(played.experiment, played.times.step_s)

    @classmethod
    def of_step(cls, experiment: Experiment, step_s: float) -> "Training":
        """Return the metrics of a training step that takes so many seconds; errors as of `of`."""
        length = experiment.batch.sequence_length
        tokens_per_s = experiment.batch.tokens / step_s
        per_gpu = tokens_per_s / experiment.gpus
        causal, noncausal = (
            per_gpu * experiment.model.flops_per_token(length, causal=causal)
            for causal in (True, False)
        )
        peak = experiment.cluster.node.chip.tensor_flops_per_s("bf16")
        numbers = {
            "step_time_s": step_s,
            "tokens_per_day": tokens_per_s * SECONDS_PER_DAY,
            "tokens_per_s_per_gpu": per_gpu,
            "tflops_causal": causal / 1e12,
            "tflops_noncausal": noncausal / 1e12,
            "mfu_causal": causal / peak,
            "mfu_noncausal": noncausal / peak,
        }
        check_finite(list(numbers.values()), lambda place: list(numbers)[place])
        return cls.model_validate(numbers)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield words and values for a terminal, both ways to count FLOPs side by side."""
        gpu_hours = 1e12 / self.tokens_per_s_per_gpu / SECONDS_PER_HOUR
        yield "step time", f"{self.step_time_s:.3f} s"
        yield "tokens per day", f"{self.tokens_per_day / 1e9:.1f} B"
        yield "tokens/s per GPU", f"{self.tokens_per_s_per_gpu:.0f}"
        yield "GPU-hours per trillion tokens", f"{gpu_hours:,.0f}"
        tflops = f"{self.tflops_causal:.0f} ({self.tflops_noncausal:.0f})"
        yield "TFLOPS per GPU, causal (full square)", tflops
        yield "MFU against BF16 peak", f"{self.mfu_causal:.1%} ({self.mfu_noncausal:.1%})"

    def remarks(self, experiment: Mapping[str, Any]) -> Iterator[str]:
        """Yield why a step does more FLOPs than the peak its MFU is counted against."""
        if self.mfu_noncausal <= 1:
            return
        tensor = experiment["cluster"]["node"]["chip"]["tensor"]
        reasons = []
        if "fp8" in tensor:
            times = tensor["fp8"] / tensor["bf16"]
            reasons.append(f"GEMMs in FP8 run at up to {times:.3g} times it")
        if self.mfu_causal <= 1:
            reasons.append("the full square of attention counts what a causal mask leaves out")
        yield f"MFU above 100 %: it is counted against the BF16 peak, and {', and '.join(reasons)}"
