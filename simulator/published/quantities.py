"""What published figures are compared with: one function a quantity, all in base units.

A quantity asks a `Bench` for the played experiments it names: the `Laboratory`, which plays each at
its inputs' own values, or an `UncertainBench`, where one draw stands in for each.

Definitions and traps of the published figures stand beside their rows in `presets/published`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwmodels.errors import SpecError, suggestion
from simulator.driver.draws import Draw, StepResult, Track, played_draws
from simulator.driver.run import run
from simulator.experiment import Experiment
from simulator.published.kernel_check import kernel_check
from simulator.published.network_quantities import NETWORK_QUANTITIES
from simulator.tell.facts.parts import Parts
from simulator.tell.result import Result
from workloads.eplb import eplb
from workloads.model import MODELS
from workloads.schedules import schedule
from workloads.schedules.replay import peak_in_flight

SECONDS_PER_DAY, SECONDS_PER_HOUR = 86400.0, 3600.0


class Bench(Protocol):
    """Where quantities find the experiments they are read off."""

    def result(self, experiment: str) -> StepResult:
        """Return the played experiment of that name."""


class Laboratory:
    """Plays each experiment once, and each of its draws, whatever the number of figures."""

    def __init__(self, track: Track = iter) -> None:
        self._results: dict[str, Result] = {}
        self._draws: dict[str, tuple[Draw, ...]] = {}
        self._track = track

    def result(self, experiment: str) -> Result:
        """Return the result of an experiment preset, at its inputs' own values."""
        if experiment not in self._results:
            point = Experiment.load(experiment)
            if point.uncertainty.draws:
                point = point.with_overrides({"uncertainty.draws": 0})
            self._results[experiment] = run(point)
        return self._results[experiment]

    def draws(self, experiment: str) -> tuple[Draw, ...]:
        """Return every draw of an experiment preset.

        Raises:
            SpecError: it asks for none.
        """
        if experiment not in self._draws:
            self._draws[experiment] = played_draws(Experiment.load(experiment), self._track)
        if not self._draws[experiment]:
            raise SpecError(f"{experiment}: uncertainty.draws: must be 1 or more to be uncertain")
        return self._draws[experiment]


@dataclass(frozen=True, slots=True)
class UncertainBench:
    """One draw in place of each experiment.

    Attributes:
        draws: by the name of the experiment that a draw stands in for.
    """

    draws: Mapping[str, Draw]

    def result(self, experiment: str) -> Draw:
        """Return the draw that stands in for an experiment.

        Raises:
            SpecError: none does.
        """
        if experiment not in self.draws:
            near = suggestion(experiment, self.draws)
            raise SpecError(f"uncertain: says nothing of experiment {experiment!r}{near}")
        return self.draws[experiment]


def kv_bytes_per_token(_: Bench, *, model: str) -> float:
    """BF16 KV cache of one token over all layers."""
    return MODELS.load(model).kv_bytes_per_token()


def training_flops_per_token(_: Bench, *, model: str, sequence_length: int) -> float:
    """Forward and backward, causal attention, recomputation not counted."""
    return MODELS.load(model).flops_per_token(sequence_length, causal=True)


def step_metric(bench: Bench, *, experiment: str, metric: str) -> float:
    """A headline metric of a simulated training step."""
    return bench.result(experiment).metrics.numbers[metric]


def step_phase(
    bench: Bench, *, experiment: str, phases: list[str], rank: int | None = None
) -> float:
    """Seconds of one or more phases, mean over pipeline ranks or of one rank."""
    step = bench.result(experiment)
    return sum(step.phase_s(phase, rank) for phase in phases)


def step_difference(bench: Bench, *, experiment: str, base: str) -> float:
    """Step time of one experiment minus that of another."""
    later, earlier = bench.result(experiment), bench.result(base)
    return later.metrics.numbers["step_time_s"] - earlier.metrics.numbers["step_time_s"]


def tflops_from_step(
    _: Bench,
    *,
    model: str,
    sequence_length: int,
    tokens: int,
    gpus: int,
    step_s: float,
    causal: bool,
) -> float:
    """Model TFLOP/s of one GPU from a published step time."""
    flops = MODELS.load(model).flops_per_token(sequence_length, causal=causal)
    return tokens / step_s / gpus * flops / 1e12


def mfu_from_step(bench: Bench, *, peak_tflops: float, **step: float) -> float:
    """Model FLOPs utilisation from a published step time, in per cent of a BF16 peak."""
    return tflops_from_step(bench, **step) / peak_tflops * 100  # type: ignore[arg-type]


def ep_limit_communication_s(
    _: Bench,
    *,
    tokens: int,
    copies: int,
    hidden: int,
    bytes_per_element: float,
    bytes_per_s: float,
) -> float:
    """Dispatch and combine of one micro-batch at link rate, no latency (ISCA'25 §2.3.2)."""
    return bytes_per_element * tokens * copies * hidden / bytes_per_s


def ep_limit_tpot_s(bench: Bench, *, layers: int, **exchange: float) -> float:
    """Time per output token when two micro-batches alternate and communication is the limit."""
    once = ep_limit_communication_s(bench, **exchange)  # type: ignore[arg-type]
    return 2 * layers * once


def ep_limit_tokens_per_s(bench: Bench, **exchange: float) -> float:
    """Tokens per second of one user at that limit."""
    return 1 / ep_limit_tpot_s(bench, **exchange)  # type: ignore[arg-type]


def gpu_hours(bench: Bench, *, experiment: str, tokens: float) -> float:
    """GPU-hours to train on `tokens` at the simulated rate."""
    rate = bench.result(experiment).metrics.numbers["tokens_per_s_per_gpu"]
    return tokens / rate / SECONDS_PER_HOUR


def microbatches_in_flight(_: Bench, *, schedule_name: str, pp: int, microbatches: int) -> float:
    """Most micro-batches whose activations of a stage one rank holds at once, counted along the
    program.
    """
    program = schedule(schedule_name).steps(pp, microbatches)
    return max(peak_in_flight(steps) for steps in program)


def eplb_slots_as_printed(
    _: Bench,
    *,
    loads: list[list[float]],
    printed: list[list[int]],
    groups: int,
    nodes: int,
    gpus: int,
) -> float:
    """Slots, over all layers, in which the load balancer puts the expert that is printed."""
    as_printed = np.array(printed)
    ours = eplb(np.array(loads, np.float64), as_printed.shape[1], groups, nodes, gpus)
    return float((ours == as_printed).sum())


def part_metric(bench: Bench, *, experiment: str, part: str, metric: str) -> float:
    """A number of one distinct part, mean over draws of the expert load."""
    parts = bench.result(experiment).fact(Parts)
    assert parts is not None, "every step has parts"
    return float(getattr(parts[part], metric))


def trace_gemm_error(bench: Bench, *, experiment: str) -> float:
    """Share of the measured FP8 GEMM time of the H800 trace that prices miss, op by op."""
    return kernel_check(bench.result(experiment).resolved()).gemm_error


def trace_glue_s(bench: Bench, *, experiment: str) -> float:
    """Price of all memory-bound kernels of one layer pair of the H800 trace."""
    return kernel_check(bench.result(experiment).resolved()).glue_s


def trace_without_partner(bench: Bench, *, experiment: str) -> float:
    """Kernels of the H800 trace that the workload has not, and of the workload that it has not."""
    return float(len(kernel_check(bench.result(experiment).resolved()).notes))


_FUNCTIONS: tuple[Callable[..., float], ...] = (
    kv_bytes_per_token,
    training_flops_per_token,
    step_metric,
    step_phase,
    step_difference,
    tflops_from_step,
    mfu_from_step,
    ep_limit_communication_s,
    ep_limit_tpot_s,
    ep_limit_tokens_per_s,
    gpu_hours,
    microbatches_in_flight,
    eplb_slots_as_printed,
    part_metric,
    trace_gemm_error,
    trace_glue_s,
    trace_without_partner,
    *NETWORK_QUANTITIES,
)
QUANTITIES = {function.__name__: function for function in _FUNCTIONS}
