"""ZB1P, also ZB-H1: 1F1B with the weight gradient put off, to fill the bubble at the end.

ZB1P is DeepSeek-V3's name of ZB-H1 ("Zero Bubble Pipeline Parallelism", arXiv 2401.10241 §2): the
bubble `(PP - 1) (F + B - W)` of that paper has the input gradient alone as B, and is what Table 2
of DeepSeek-V3 writes as `(PP - 1) (F + B - 2 W)` with the full backward. The order of forwards and
input gradients is 1F1B's, and rank r keeps r weight gradients in hand. Rank 0 runs each at once; a
later rank starts backward earlier and spends its surplus while it would wait at the end, so that no
rank holds more than 1F1B's rank 0.
"""

import numpy as np

from hwmodels.errors import InfeasibleError
from workloads.schedules import one_f_one_b
from workloads.schedules.chunks import check_ranks, only
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program, Step

NAME = "zb1p"
ALIASES = ("zb-h1", "zbh1")
PARAMETER_COPIES = 1


def stages(pp: int, vpp: int | None = None) -> int:
    """`PP`."""
    return pp * only(NAME, 1, vpp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    order = one_f_one_b.steps(pp, microbatches)
    return tuple(_with_weights_put_off(program, rank) for rank, program in enumerate(order))


def _with_weights_put_off(program: tuple[Step, ...], in_hand: int) -> tuple[Step, ...]:
    """Split each full backward; run the oldest weight gradient when more than `in_hand` wait."""
    split: list[Step] = []
    waiting: list[Step] = []
    for step in program:
        if step.kind != "B":
            split.append(step)
            continue
        split.append(Step("Bi", backward=step.backward))
        waiting.append(Step("W", backward=step.backward))
        if len(waiting) > in_hand:
            split.append(waiting.pop(0))
    return tuple(split + waiting)


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stage r."""
    only(NAME, 1, vpp)
    return one_f_one_b.stages_of_rank(pp, rank)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP - 1) (F + B - 2 W)`, B being the full backward; pairs play no part.

    Holds where a weight gradient fills what a rank waits for: `W <= F` and `W <= B - W`, and at
    least PP micro-batches.
    """
    del pair_s
    return (pp - 1) * (forward_s + backward_s - 2 * weight_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """`max over stages of M (F + B)`, and of all other stages `F + B - 2 W`.

    With fewer micro-batches than ranks fewer weight gradients fill waits. Exact for equal stages
    with `W <= F` and `W <= B - W`, else a bound from above: a weight gradient fills no more than
    the shorter of these.
    """
    forward_s, input_s, weight_s = times.forward_s, times.input_s, times.weight_s
    chunk_s = forward_s + input_s + weight_s
    filled = (min(pp, microbatches) - 1) / max(1, pp - 1)
    saved_s = np.minimum(weight_s, np.minimum(forward_s, input_s)) * filled
    passed_s = forward_s + input_s - saved_s
    return float((microbatches * chunk_s + passed_s.sum() - passed_s).max())


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`PP` on rank 0, once there are as many micro-batches."""
    return min(pp, microbatches)


def minimum_microbatches(pp: int) -> int:
    """One is enough."""
    return one_f_one_b.minimum_microbatches(pp)


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """Any number of ranks and of micro-batches, one stage a rank."""
    check_ranks(pp)
    only(NAME, 1, vpp)
    if microbatches < minimum_microbatches(pp):
        raise InfeasibleError(
            f"plan.schedule: {NAME} needs at least {minimum_microbatches(pp)} micro-batch per "
            f"pipeline, got {microbatches}"
        )


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with."""
    return ((1, 1, 1), (1, 3, 1), (2, 4, 1), (4, 2, 1), (8, 4, 1), (8, 20, 1), (16, 120, 1))
