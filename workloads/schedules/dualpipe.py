"""DualPipe: micro-batches enter at both ends, and a forward overlaps with another's backward.

DeepSeek-V3 technical report (arXiv 2412.19437v2) §3.2.1 and Table 2; the order of steps is that of
repository deepseek-ai/DualPipe @ bb214e8 (step counts as in 3da1bbe).

Rank r holds stages r and PP - 1 - r, so each stage has two homes. The first half of the
micro-batches (0 to M/2 - 1) enters at rank 0 and runs up the ranks, the second half enters at rank
PP - 1 and runs down. Seen from a rank at distance h = min(r, PP - 1 - r) from its nearer end:

    0   the near direction, entered at the nearer end: its chunks run on stage h
    1   the far direction, entered at the other end: its chunks run on stage PP - 1 - h

With H = PP / 2, a rank runs eight loops: F0 is the next forward of direction 0, B1 the next full
backward of direction 1, b a backward that puts its weight gradient off, W the oldest one put off,
F0B1 an overlapped pair:

    1   2 (H - h - 1)           F0
    2   h + 1                   F0 F1
    3   H - h - 1               b1 W F1
    4   M / 2 - PP + h + 1      F0B1 F1B0
    5   H - h - 1               B1 F1B0
    6   h + 1                   B1 B0, the last h + 1 of these 2 (h + 1) as b
    7   H - h - 1               W b0
    8   h + 1                   W

The two middle ranks (h = H - 1) run the very first pair of loop 4 as F0 then B1, not overlapped:
the neighbour waits for that forward. The backward inside a pair is always full.
"""

import numpy as np

from hwmodels.errors import InfeasibleError
from workloads.schedules.chunks import only, rank_in
from workloads.schedules.rank_order import RankOrder
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program, Step

NAME = "dualpipe"
PARAMETER_COPIES = 2


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    return tuple(_rank_order(pp, microbatches, rank) for rank in range(pp))


def _rank_order(pp: int, microbatches: int, rank: int) -> tuple[Step, ...]:
    near, half = min(rank, pp - 1 - rank), microbatches // 2
    first = (0, half) if rank < pp // 2 else (half, 0)
    return eight_loops(RankOrder((near, pp - 1 - near), first), pp // 2, near, half)


def eight_loops(order: RankOrder, half: int, near: int, microbatches: int) -> tuple[Step, ...]:
    """Write the steps of the rank at distance `near` from its nearer end.

    Args:
        order: of that rank, empty; its chunk 0 is the near direction, chunk 1 the far one.
        half: ranks from one end to the middle, H.
        microbatches: of each direction.
    """
    is_middle = near == half - 1
    for _ in range(2 * (half - near - 1)):  # 1: F0
        order.forward(0)
    for _ in range(near + 1):  # 2: F0 F1
        order.forward(0)
        order.forward(1)
    for _ in range(half - near - 1):  # 3: b1 W F1
        order.backward(1, put_off_weights=True)
        order.weight()
        order.forward(1)
    for i in range(microbatches - 2 * half + near + 1):  # 4: F0B1 F1B0
        if i == 0 and is_middle:
            order.forward(0)
            order.backward(1)
        else:
            order.pair(forward=0, backward=1)
        order.pair(forward=1, backward=0)
    for _ in range(half - near - 1):  # 5: B1 F1B0
        order.backward(1)
        order.pair(forward=1, backward=0)
    for i in range(2 * (near + 1)):  # 6: B1 B0, the second half zero-bubble
        order.backward(1 - i % 2, put_off_weights=i > near)
    for _ in range(half - near - 1):  # 7: W b0
        order.weight()
        order.backward(0, put_off_weights=True)
    for _ in range(near + 1):  # 8: W
        order.weight()
    return tuple(order.steps)


def stages(pp: int, vpp: int | None = None) -> int:
    """`PP`, each on two ranks."""
    return pp * only(NAME, 1, vpp)


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stages r and PP - 1 - r, in that order."""
    only(NAME, 1, vpp)
    rank_in(pp, rank)
    return (rank, pp - 1 - rank)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP/2 - 1) (F&B + B - 3 W)`, B being the full backward.

    Holds for equal chunks with F = B - W = W and F&B = F + B; otherwise ranks differ.
    """
    del forward_s
    return (pp // 2 - 1) * (pair_s + backward_s - 3 * weight_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """Seconds that the busiest rank works in its eight loops, and `bubble_s` of the mean stage.

    Exact where `bubble_s` is: equal stages with F = B - W = W and F&B = F + B. Else it is an
    estimate: overlap makes ranks differ, and the busiest one does not wait as long as Table 2 says.
    """
    half = pp // 2
    near = np.arange(half)
    far, rest = pp - 1 - near, half - 1 - near
    forward_s, backward_s = times.forward_s, times.backward_s
    input_s, weight_s, pair_s = times.input_s, times.weight_s, times.pair_s
    busy_s = (2 * rest + near + 1) * forward_s[near] + half * forward_s[far]  # loops 1 to 3
    busy_s += rest * (input_s[far] + weight_s[far])
    busy_s += (microbatches // 2 - pp + near + 1) * (pair_s[near] + pair_s[far])  # 4
    busy_s[-1] += forward_s[half - 1] + backward_s[half] - pair_s[half - 1]
    busy_s += rest * (backward_s[far] + pair_s[far])  # 5
    full = near + 1  # 6: of 2 (h + 1) backwards, far and near in turn
    busy_s += -(-full // 2) * backward_s[far] + full // 2 * backward_s[near]
    busy_s += full // 2 * input_s[far] + -(-full // 2) * input_s[near]
    busy_s += rest * (weight_s[near] + input_s[near]) + full * weight_s[near]  # 7 and 8
    mean = (float(each.mean()) for each in (forward_s, backward_s, weight_s, pair_s))
    return float(busy_s.max()) + max(0.0, bubble_s(pp, *mean))


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`PP + 1`, on every rank."""
    return pp + 1


def minimum_microbatches(pp: int) -> int:
    """`2 PP`: both directions must fill the pipeline."""
    return 2 * pp


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """Even numbers of ranks and micro-batches, at least `2 PP` of these."""
    only(NAME, 1, vpp)
    if pp < 2 or pp % 2:
        raise InfeasibleError(f"plan.pp: {NAME} needs an even number of ranks, got {pp}")
    if microbatches % 2:
        raise InfeasibleError(
            f"plan.schedule: {NAME} needs an even number of micro-batches per pipeline, "
            f"got {microbatches}"
        )
    if microbatches < minimum_microbatches(pp):
        raise InfeasibleError(
            f"plan.schedule: {NAME} needs at least 2 pp = {minimum_microbatches(pp)} micro-batches "
            f"per pipeline, got {microbatches}"
        )


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with."""
    return ((2, 4, 1), (4, 8, 1), (8, 16, 1), (8, 20, 1), (16, 32, 1), (16, 120, 1))
