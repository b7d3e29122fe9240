"""Interleaved 1F1B: each rank holds several model chunks, which divide the bubble by their number.

Megatron-LM (arXiv 2104.04473 §2.2; what its users ask for by virtual pipeline stages). With `vpp`
chunks a rank there are PP vpp stages, and rank r holds stages r, PP + r, 2 PP + r ... Micro-batches
go in groups of G: a group runs forward through chunk 0 of all ranks, then through chunk 1 and so
on, backward through the last chunk first. Rank r starts with `2 (PP - 1 - r) + (vpp - 1) G`
forwards, then alternates one forward and one full backward.

G is PP in the paper, which asks for a multiple of PP micro-batches. Megatron-LM takes others since
it has `microbatch_group_size_per_vp_stage`, unless the last group has fewer than PP, which would
wait for itself. Here G is the smallest, from PP on, of which that does not happen: the fewest
activations. Older Megatron-LM's start with all forwards where there is one group is not modelled.
"""

from hwmodels.errors import InfeasibleError
from workloads.schedules.chunks import check_ranks, rank_in
from workloads.schedules.stage_times import StageTimes
from workloads.schedules.step import Chunk, Program, Step

NAME = "interleaved"
PARAMETER_COPIES = 1
CHUNKS = 2
"""Model chunks a rank unless the plan says how many: the fewest that are interleaved."""


def stages(pp: int, vpp: int | None = None) -> int:
    """`PP vpp`."""
    return pp * _chunks(vpp)


def _chunks(vpp: int | None) -> int:
    chunks = CHUNKS if vpp is None else vpp
    if chunks < CHUNKS:
        raise InfeasibleError(f"plan.vpp: must be at least {CHUNKS} for {NAME}, got {vpp}")
    return chunks


def _group(pp: int, microbatches: int) -> int:
    """Micro-batches of a group: the fewest that leave no rest below `pp`."""
    sizes = range(pp, microbatches + 1)
    return next(size for size in sizes if not 0 < microbatches % size < pp)


def steps(pp: int, microbatches: int, vpp: int | None = None) -> Program:
    """Steps of every rank; see `Schedule.steps`."""
    check(pp, microbatches, vpp)
    return tuple(_rank_steps(pp, microbatches, rank, _chunks(vpp)) for rank in range(pp))


def _rank_steps(pp: int, microbatches: int, rank: int, vpp: int) -> tuple[Step, ...]:
    group = _group(pp, microbatches)
    places = [
        (chunk, i)
        for first in range(0, microbatches, group)
        for chunk in range(vpp)
        for i in range(first, min(first + group, microbatches))
    ]
    forward = [Step("F", Chunk(chunk * pp + rank, i)) for chunk, i in places]
    backward = [Step("B", None, Chunk((vpp - 1 - chunk) * pp + rank, i)) for chunk, i in places]
    warm_up = min(2 * (pp - 1 - rank) + (vpp - 1) * group, len(places))
    program = forward[:warm_up]
    for f, b in zip(forward[warm_up:], backward, strict=False):
        program += [f, b]
    return tuple(program + backward[len(places) - warm_up :])


def stages_of_rank(pp: int, rank: int, vpp: int | None = None) -> tuple[int, ...]:
    """Rank r holds every PP-th stage from r on."""
    rank_in(pp, rank)
    return tuple(range(rank, stages(pp, vpp), pp))


def bubble_s(pp: int, forward_s: float, backward_s: float, weight_s: float, pair_s: float) -> float:
    """`(PP - 1) (F + B)` of one chunk: of a rank's whole work on a micro-batch, divided by vpp."""
    del weight_s, pair_s
    return (pp - 1) * (forward_s + backward_s)


def step_s(pp: int, microbatches: int, times: StageTimes) -> float:
    """`M (F + B)` of the busiest rank, and `bubble_s` of the mean chunk.

    Exact for equal chunks, else an estimate: a slow chunk also delays those of other ranks.
    """
    chunk_s = times.forward_s + times.backward_s
    busy_s = microbatches * float(chunk_s.reshape(-1, pp).sum(axis=0).max())
    return busy_s + (pp - 1) * float(chunk_s.mean())


def chunks_in_flight(pp: int, microbatches: int, vpp: int | None = None) -> int:
    """`(vpp - 1) G + 2 PP - 1` on rank 0, no more than there are. In groups of PP that is 1F1B's
    activations `1 + (PP - 1) / (PP vpp)` times, as in arXiv 2205.05198 §4.2.3.
    """
    check(pp, microbatches, vpp)
    chunks = _chunks(vpp)
    most = (chunks - 1) * _group(pp, microbatches) + 2 * pp - 1
    return min(most, microbatches * chunks)


def minimum_microbatches(pp: int) -> int:
    """`PP`: one group."""
    return pp


def check(pp: int, microbatches: int, vpp: int | None = None) -> None:
    """At least two chunks a rank, and PP micro-batches."""
    check_ranks(pp)
    _chunks(vpp)
    if microbatches < minimum_microbatches(pp):
        raise InfeasibleError(
            f"plan.schedule: {NAME} needs at least pp = {pp} micro-batches per pipeline, "
            f"got {microbatches}"
        )


def sizes() -> tuple[tuple[int, int, int], ...]:
    """Ranks, micro-batches and chunks to try it with."""
    return ((1, 3, 2), (2, 4, 2), (4, 4, 3), (4, 10, 2), (8, 16, 4), (8, 20, 3), (16, 120, 2))
