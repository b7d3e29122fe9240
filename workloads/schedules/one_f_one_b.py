"""1F1B: after warming up, every rank alternates one forward and one full backward.

Rank r starts with PP - 1 - r forwards, so that rank 0 holds PP chunks and the last rank one
(PipeDream-Flush; Megatron-LM, arXiv 2104.04473 §2.2).
"""

from hwmodels.errors import InfeasibleError
from workloads.schedules.chunks import check_ranks, only, rank_in
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Chunk, Program, Step

NAME = "1f1b"
PARAMETER_COPIES = 1


def stages(pp: int, vpp: int | None = None) -> int:
    """`PP`."""
    return pp * only(NAME, 1, vpp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    return tuple(_rank_steps(pp, microbatches, rank) for rank in range(pp))


def _rank_steps(pp: int, microbatches: int, rank: int) -> tuple[Step, ...]:
    warm_up = min(pp - 1 - rank, microbatches)
    forward = [Step("F", forward=Chunk(rank, i)) for i in range(microbatches)]
    backward = [Step("B", backward=Chunk(rank, i)) for i in range(microbatches)]
    program = forward[:warm_up]
    for f, b in zip(forward[warm_up:], backward, strict=False):
        program += [f, b]
    return tuple(program + backward[microbatches - warm_up :])


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stage r."""
    only(NAME, 1, vpp)
    rank_in(pp, rank)
    return (rank,)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP - 1) (F + B)`; weights and pairs play no part."""
    del weight_s, pair_s
    return (pp - 1) * (forward_s + backward_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """`sum over stages (F + B) + (M - 1) max (F + B)`: exact for equal stages, else the slowest
    stage need not hold all others up, and it is a bound from above.
    """
    chunk_s = times.forward_s + times.backward_s
    return float(chunk_s.sum() + (microbatches - 1) * chunk_s.max())


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`PP` on rank 0, once there are as many micro-batches."""
    return min(pp, microbatches)


def minimum_microbatches(pp: int) -> int:
    """One is enough."""
    del pp
    return 1


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
