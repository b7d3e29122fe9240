"""ZB-V: a V-shape of two chunks a rank whose weight gradients fill all waits.

"Zero Bubble Pipeline Parallelism" (arXiv 2401.10241 §6), the order that its authors wrote by hand
(sail-sg/zero-bubble-pipeline-parallelism, ZB-V). Chunk 0 of rank r is stage r, chunk 1 stage
2 PP - 1 - r: a micro-batch goes down all ranks and back up. F0 is the next forward of chunk 0, b1
the next input gradient of chunk 1, W1 its oldest weight gradient put off. A rank runs

    1   2 (PP - r) - 1          F0
    2   r                       F1 F0
    3   PP - r                  F1 b1 W1
    4   while forwards are left F0 b0 W0 F1 b1 W1, without F0 once it has run them all
    5   r                       b0 b1
    6   PP - r                  b0 W0
    7   what is left            W1, then W0

Every rank holds PP whole micro-batches, 2 PP chunks, as rank 0 does under 1F1B.
"""

from workloads.schedules import v_shape
from workloads.schedules.rank_order import RankOrder
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program, Step

NAME = "zbv"
PARAMETER_COPIES = 1


def stages(pp: int, vpp: int | None = None) -> int:
    """`2 PP`."""
    return v_shape.stages(NAME, pp, vpp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    return tuple(_rank_steps(pp, microbatches, rank) for rank in range(pp))


def _rank_steps(pp: int, microbatches: int, rank: int) -> tuple[Step, ...]:
    order = RankOrder(v_shape.stages_of_rank(pp, rank))
    for _ in range(2 * (pp - rank) - 1):  # 1: F0
        order.forward(0)
    for _ in range(rank):  # 2: F1 F0
        order.forward(1)
        order.forward(0)
    for _ in range(pp - rank):  # 3: F1 b1 W1
        _forward_backward_weight(order, 1)
    while order.next_forward[1] < microbatches:  # 4: F0 b0 W0 F1 b1 W1
        _forward_backward_weight(order, 0, forward=order.next_forward[0] < microbatches)
        _forward_backward_weight(order, 1)
    for _ in range(rank):  # 5: b0 b1
        order.backward(0, put_off_weights=True)
        order.backward(1, put_off_weights=True)
    for _ in range(pp - rank):  # 6: b0 W0
        _forward_backward_weight(order, 0, forward=False)
    for chunk in (1, 0):  # 7: W1, W0
        for _ in [each for each in order.put_off if each[0] == chunk]:
            order.weight(chunk)
    return tuple(order.steps)


def _forward_backward_weight(order: RankOrder, chunk: int, *, forward: bool = True) -> None:
    if forward:
        order.forward(chunk)
    order.backward(chunk, put_off_weights=True)
    order.weight(chunk)


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stages r and 2 PP - 1 - r."""
    stages(pp, vpp)
    return v_shape.stages_of_rank(pp, rank)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP - 1) F` where F = B - W = W: what a rank waits before its first forward, or after its
    last step for the others; no wait in between.

    Else the longest path that goes down and up the V: exact for all equal chunks with
    `2 F <= 2 b + W`, b being the input gradient `B - W`; that is one of the two conditions under
    which arXiv 2405.15362 promises no bubble, the other is `2 b <= 2 F + W`. Where the first does
    not hold it is a bound from below. Derived by us, from the order above.
    """
    del pair_s
    if pp == 1:
        return 0.0
    input_s, hops = backward_s - weight_s, pp - 1
    return max(
        hops * input_s,
        2 * hops * (input_s - weight_s),
        hops * forward_s + (hops - 1) * (forward_s - input_s),
        input_s - forward_s + 2 * hops * (forward_s - weight_s),
        max(forward_s, input_s) + (hops - 1) * weight_s,
    )


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """`M (F + B)` of the busiest rank, and `bubble_s` of the mean chunk.

    Exact where `bubble_s` is, else an estimate.
    """
    return v_shape.busiest_s(pp, microbatches, times) + bubble_s(pp, *v_shape.mean_chunk_s(times))


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`2 PP` on every rank, of half the layers each: 1F1B's `PP`."""
    return 2 * pp


def minimum_microbatches(pp: int) -> int:
    """`2 PP - 1`: the way down and the way up must be full."""
    return 2 * pp - 1


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """Two chunks a rank, and at least `2 PP - 1` micro-batches."""
    v_shape.check(NAME, pp, microbatches, vpp, minimum_microbatches(pp), "2 pp - 1")


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with."""
    return ((1, 1, 2), (2, 3, 2), (3, 7, 2), (4, 8, 2), (8, 20, 2), (16, 32, 2), (16, 120, 2))
