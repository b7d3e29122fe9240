"""DualPipeV: DualPipe cut in half, so that every stage has one home.

deepseek-ai/DualPipe (README, "Cut-in-half"; after Sea AI Lab's
https://hackmd.io/@ufotalent/r1lVXsa9Jg). The two halves of DualPipe's ranks mirror each other: rank
r and rank PP - 1 - r hold the same stages and do the same for other micro-batches. One half alone,
whose last rank hands to itself what it would have sent to its mirror, is a V-shape: rank r of pp
runs what rank r of DualPipe with PP = 2 pp ranks runs, its far direction being the way back up of
the same micro-batches (`workloads.schedules.dualpipe` lists the eight loops).
"""

from workloads.schedules import dualpipe, v_shape
from workloads.schedules.rank_order import RankOrder
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program

NAME = "dualpipev"
PARAMETER_COPIES = 1


def stages(pp: int, vpp: int | None = None) -> int:
    """`2 pp`."""
    return v_shape.stages(NAME, pp, vpp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    orders = (RankOrder(v_shape.stages_of_rank(pp, rank)) for rank in range(pp))
    return tuple(
        dualpipe.eight_loops(order, pp, rank, microbatches) for rank, order in enumerate(orders)
    )


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stages r and 2 pp - 1 - r."""
    stages(pp, vpp)
    return v_shape.stages_of_rank(pp, rank)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(pp - 1) (F&B + B - 3 W)`: DualPipe's of PP = 2 pp stages, under the same conditions."""
    return dualpipe.bubble_s(2 * pp, forward_s, backward_s, weight_s, pair_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """DualPipe's of 2 pp stages and as many micro-batches from each end."""
    return dualpipe.step_s(2 * pp, 2 * microbatches, times)


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`2 pp + 1` on every rank: DualPipe's `PP + 1`."""
    return 2 * pp + 1


def minimum_microbatches(pp: int) -> int:
    """`2 pp`: DualPipe's `2 PP`, half of them from each end."""
    return 2 * pp


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """Two chunks a rank, and at least `2 pp` micro-batches."""
    v_shape.check(NAME, pp, microbatches, vpp, minimum_microbatches(pp), "2 pp")


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with; (4, 10) is the repository's example."""
    return ((1, 2, 2), (2, 4, 2), (4, 10, 2), (8, 20, 2), (8, 32, 2), (16, 120, 2))
