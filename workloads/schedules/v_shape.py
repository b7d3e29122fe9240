"""What V-shapes share: two model chunks a rank, down the ranks and back up again.

With PP ranks there are 2 PP stages; rank r holds stages r and 2 PP - 1 - r. So the last rank hands
a micro-batch to itself, and the first and the last stage sit on rank 0.
"""

from hwmodels.errors import InfeasibleError
from workloads.schedules.chunks import check_ranks, only, rank_in
from workloads.schedules.stage_times import StageTimes

CHUNKS = 2


def stages(name: str, pp: int, vpp: int | None) -> int:
    """`2 PP`; see `Schedule.stages`."""
    return pp * only(name, CHUNKS, vpp)


def stages_of_rank(pp: int, rank: int) -> tuple[int, int]:
    """Rank r holds stages r and 2 PP - 1 - r, in that order."""
    rank_in(pp, rank)
    return rank, 2 * pp - 1 - rank


def check(name: str, pp: int, microbatches: int, vpp: int | None, least: int, why: str) -> None:
    """Refuse another number of chunks than two, and fewer than `least` micro-batches.

    Args:
        why: `least` as a formula.
    """
    check_ranks(pp)
    only(name, CHUNKS, vpp)
    if microbatches < least:
        raise InfeasibleError(
            f"plan.schedule: {name} needs at least {why} = {least} micro-batches per pipeline, "
            f"got {microbatches}"
        )


def busiest_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """Seconds that the busiest rank works if all weight gradients are put off."""
    chunk_s = times.forward_s + times.input_s + times.weight_s
    return microbatches * float((chunk_s[:pp] + chunk_s[: pp - 1 : -1]).max())


def mean_chunk_s(times: StageTimes) -> tuple[float, float, float, float]:
    """Seconds of the mean chunk in the order of `Schedule.bubble_s`; no pairs."""
    forward_s, input_s, weight_s = (
        float(each.mean()) for each in (times.forward_s, times.input_s, times.weight_s)
    )
    return forward_s, input_s + weight_s, weight_s, float("nan")
