"""V-Half: a V-shape that holds half of 1F1B's activations.

"Pipeline Parallelism with Controllable Memory" (arXiv 2405.15362). Its schedules repeat a building
block: passes of one micro-batch, in slots of a forward, an input gradient or a weight gradient, all
as long. The next micro-batch runs 6 slots later. V-Half's block goes down the ranks in steps of two
slots and up in steps of one, both ways, so a rank has a micro-batch for about half as long:

    F0   2 r                      down, stage r
    F1   3 PP - 2 - r             up, stage 2 PP - 1 - r
    b1   3 PP - 1 + 2 r + gap     its input gradient
    b0   6 PP - 2 - r + gap       and that of stage r; gap is 3 for an even PP, so that no two meet

(offsets and gap as in its authors' code, sail-sg/zero-bubble-pipeline-parallelism). Forwards and
input gradients run in the order of these slots. The paper gives no rule for weight gradients, and
moves passes once the bubbles are squeezed out; here a greedy list scheduler with passes of one slot
places the weight gradients: a rank runs the oldest whenever its next pass has to wait for others,
or is a forward that would exceed the `2 floor(PP / 2) + 2` chunks it may hold.
"""

from workloads.schedules import v_shape
from workloads.schedules.rank_order import RankOrder
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Program

NAME = "vhalf"
PARAMETER_COPIES = 1
SLOTS = 6
"""Of a micro-batch on a rank: three passes of two chunks."""

F0, F1, B1, B0 = range(4)


def stages(pp: int, vpp: int | None = None) -> int:
    """`2 PP`."""
    return v_shape.stages(NAME, pp, vpp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    most = chunks_in_flight(pp, microbatches)
    ranks = [_Rank(pp, microbatches, rank, most) for rank in range(pp)]
    ended = [[[-1] * microbatches for _ in ranks] for _ in range(4)]
    while any(rank.left for rank in ranks):
        for rank in ranks:
            rank.advance(ended)
    return tuple(tuple(rank.order.steps) for rank in ranks)


def _slots(pp: int, rank: int) -> tuple[int, int, int, int]:
    """Slots of the first micro-batch: F0, F1, b1, b0."""
    gap = 0 if pp % 2 else 3
    return (2 * rank, 3 * pp - 2 - rank, 3 * pp - 1 + 2 * rank + gap, 6 * pp - 2 - rank + gap)


def _before(pp: int, rank: int, which: int) -> tuple[int, int] | None:
    """The pass, and its rank, of the same micro-batch that a pass waits for."""
    if which in (F0, B1):
        first = None if which == F0 else (F1, 0)
        return (which, rank - 1) if rank else first
    return (which, rank + 1) if rank < pp - 1 else (which - 1, rank)


class _Rank:
    """A rank of the list scheduler.

    Attributes:
        left: passes that have not run, the next one last.
        free: slot from which the rank is free.
    """

    def __init__(self, pp: int, microbatches: int, rank: int, most: int) -> None:
        self.rank, self.most = rank, most
        self.before = [_before(pp, rank, which) for which in range(4)]
        places = sorted(
            (slot + SLOTS * i, which, i)
            for which, slot in enumerate(_slots(pp, rank))
            for i in range(microbatches)
        )
        self.left = [(which, i) for _, which, i in reversed(places)]
        self.order = RankOrder(v_shape.stages_of_rank(pp, rank))
        self.held = self.free = 0

    def advance(self, ended: list[list[list[int]]]) -> None:
        """Run passes until one waits for what has not run; at the end all weight gradients.

        Args:
            ended: by pass, rank and micro-batch, the slot after it; -1 of those that have not run.
        """
        while self.left:
            which, i = self.left[-1]
            before = self.before[which]
            ready = ended[before[0]][before[1]][i] if before else 0
            if ready < 0:
                return
            if ready > self.free:
                self._fill(ready)
            if which <= F1:
                if self.held == self.most:
                    self._weight()
                self.order.forward(which)
                self.held += 1
            else:
                self.order.backward(B0 - which, put_off_weights=True)
            self.free = (ready if ready > self.free else self.free) + 1
            ended[which][self.rank][i] = self.free
            self.left.pop()
            if not self.left:
                self._fill(self.free + len(self.order.put_off))

    def _fill(self, until: int) -> None:
        """Run weight gradients in the slots before `until`."""
        for _ in range(min(until - self.free, len(self.order.put_off))):
            self._weight()

    def _weight(self) -> None:
        self.order.weight()
        self.held -= 1
        self.free += 1


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds stages r and 2 PP - 1 - r."""
    stages(pp, vpp)
    return v_shape.stages_of_rank(pp, rank)


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP + 1) F + 3 (PP - 1) b - (PP + 1) W`, b being the input gradient `B - W`; of an odd
    number of ranks `(PP - 1) F + 3 (PP - 1) b - PP W`.

    With F = b = W `3 (PP - 1)`, one less if odd: half of 1F1B's, as published (a share of about
    `PP / (2 M)`). Holds for `F <= b`, `W <= b`, and `2 b <= 2 F + W`, one of the paper's two
    conditions. Derived by us, from the order above.
    """
    del pair_s
    if pp == 1:
        return 0.0
    odd = pp % 2
    ends_s = (pp + 1 - 2 * odd) * forward_s - (pp + 1 - odd) * weight_s
    return ends_s + 3 * (pp - 1) * (backward_s - weight_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """`M (F + B)` of the busiest rank, and what the mean chunk makes it wait.

    Exact where `bubble_s` is. Else an estimate: where input gradients are so long that
    `2 b > 2 F + W`, each block of the building is longer than its work, so that the bubble grows
    with the micro-batches; where they are shorter than forwards, likewise.
    """
    forward_s, backward_s, weight_s, pair_s = v_shape.mean_chunk_s(times)
    input_s, odd = backward_s - weight_s, pp % 2
    bubbles_s = [bubble_s(pp, forward_s, backward_s, weight_s, pair_s)]
    if pp > 1:
        longer_s = 2 * input_s - 2 * forward_s - weight_s
        bubbles_s.append(bubbles_s[0] + (microbatches - pp // 2 - 1) * longer_s - weight_s)
        ends_s = (pp - 2) * forward_s + (2 * pp - 1 - odd) * input_s
        bubbles_s.append(ends_s + 2 * microbatches * (forward_s - input_s))
    return v_shape.busiest_s(pp, microbatches, times) + max(0.0, *bubbles_s)


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`2 floor((PP + 2) / 2)` of half the layers each, no more than there are: half of 1F1B's `PP`,
    and one, whole micro-batches.
    """
    return 2 * min((pp + 2) // 2, microbatches)


def minimum_microbatches(pp: int) -> int:
    """`floor(PP / 2) + 1`: as many as fill what it may hold."""
    return pp // 2 + 1


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """Two chunks a rank, and as many micro-batches as a rank may hold."""
    v_shape.check(NAME, pp, microbatches, vpp, minimum_microbatches(pp), "floor(pp / 2) + 1")


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with."""
    return ((1, 1, 2), (2, 4, 2), (3, 5, 2), (4, 3, 2), (8, 20, 2), (15, 40, 2), (16, 120, 2))
