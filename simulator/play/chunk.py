"""One chunk of a pipeline stage, played on every rank of its expert group in lock-step.

Kinds, as schedules name them:

    F    forward: attn, dispatch, mlp, combine, layer after layer; exchanges exposed
    Bi   gradient of the inputs only, layers in reverse
    B    full backward: the weight gradients of a half run right after its input gradients,
         before the next exchange may start, as autograd launches them
    W    weight gradients that Bi put off
    FB   a forward and a full backward chunk overlapped (DualPipe): layer by layer

         compute  attn(F)  mlp(B)  mlp(W)  mlp(F)  attn(B)  attn(W)
         comm     combine(B)  dispatch(F)  dispatch(B)  combine(F)

The order of FB is that of DeepSeek's published training trace (deepseek-ai/profile-data @4496024);
where the two chunks differ in length, the longer one's last layers run alone. Compute slows down
while an exchange runs beside it and the exchange while compute does (measured factors), so
durations and overlap are played in turn until they agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from hwmodels.costs import slowdown, work_share
from hwmodels.errors import MoesimError
from simulator.play.graph import Floats, GraphBuilder, TaskGraph, tile
from simulator.play.timeline import Timeline
from simulator.price.layers import ExchangeCost, PricedLayer, SegmentCost
from workloads.schedules.step import StepKind

Engine = Callable[[TaskGraph], Timeline]

Indexed = tuple[int, PricedLayer | None]
Mask = NDArray[np.bool_]

COMPUTE, COMM = "compute", "comm"
NO_LAYER: Indexed = (-1, None)
SETTLED = 1e-5  # relative change of the makespan at which overlap and durations agree
UNDAMPED_ROUNDS, ROUNDS_MAX = 6, 40  # then every round goes half the way only


@dataclass(frozen=True, slots=True)
class ChunkPlay:
    """A played chunk; `timeline` holds `ranks` copies of the tasks of one rank, rank-major."""

    kind: StepKind
    timeline: Timeline
    ranks: int
    rounds: int

    @property
    def duration_s(self) -> float:
        """Until the slowest rank is done: the next stage's exchanges join them all."""
        return self.timeline.makespan_s

    @property
    def mean_wait_s(self) -> float:
        """Mean seconds a rank waits for the others in one exchange, 0 without exchanges."""
        joined = self.timeline.graph.collective >= 0
        return float(self.timeline.wait_s[joined].mean()) if joined.any() else 0.0

    def busy_s(self, stream: str) -> float:
        """Mean over ranks of the seconds `stream` works."""
        names = self.timeline.graph.streams
        chosen = [index for index, name in enumerate(names) if name.endswith(f"/{stream}")]
        return float(self.timeline.busy_s()[chosen].sum() / self.ranks)


@dataclass(slots=True)
class _Program:
    """Tasks of one rank, and beside each its cost on all ranks."""

    graph: GraphBuilder = field(default_factory=GraphBuilder)
    costs: list[SegmentCost] = field(default_factory=list)
    collectives: int = 0

    def run(
        self, stream: str, label: str, cost: SegmentCost, after: int | None = None
    ) -> int | None:
        """Append work to a stream; nothing where the cost is empty (then `after` stands for it)."""
        if cost.empty:
            return after
        self.costs.append(cost)
        return self.graph.add(stream, label, after=(after,))

    def compute(self, label: str, cost: SegmentCost, after: int | None = None) -> int | None:
        return self.run(COMPUTE, label, cost, after)

    def exchange(
        self, label: str, cost: SegmentCost, after: int | None, glue: SegmentCost | None = None
    ) -> int:
        """Append an all-to-all that all ranks of the group start together."""
        if glue is not None:
            after = self.run(COMM, f"{label} layout", glue, after)
        self.costs.append(cost)
        self.collectives += 1
        return self.graph.add(COMM, label, after=(after,), collective=self.collectives - 1)


def play_chunk(
    kind: StepKind,
    forward: Sequence[PricedLayer],
    backward: Sequence[PricedLayer],
    engine: Engine,
) -> ChunkPlay:
    """Play one chunk on all ranks of an expert group.

    Labels are `segment(phase) layer`, the layer counted within its stage.

    Args:
        forward: layers of the forward chunk in model order; empty for Bi, B, W.
        backward: layers of the backward chunk in model order; empty for F.
    """
    program = _program(kind, forward, backward)
    rank = program.graph.build()
    alone = np.stack([cost.duration_s for cost in program.costs], axis=1)
    factor = np.array([cost.beside_factor for cost in program.costs])
    on_comm = np.array([rank.streams[s] == COMM for s in rank.stream])
    return _settle(kind, rank, alone, factor, on_comm, engine)


def _program(
    kind: StepKind, forward: Sequence[PricedLayer], backward: Sequence[PricedLayer]
) -> _Program:
    program = _Program()
    if kind == "W":
        for index, layer in reversed(list(enumerate(backward))):
            program.compute(f"mlp(W) {index}", layer.mlp["W"])
            program.compute(f"attn(W) {index}", layer.attn["W"])
        return program
    sent_f: int | None = None  # what the next forward layer waits for
    sent_b: int | None = None  # what the next backward layer waits for
    ahead, back = enumerate(forward), reversed(list(enumerate(backward)))
    for f, b in zip_longest(ahead, back, fillvalue=NO_LAYER):
        sent_f, sent_b = _layer_pair(program, kind, f, b, sent_f, sent_b)
    return program


def _layer_pair(
    program: _Program,
    kind: StepKind,
    forward: Indexed,
    backward: Indexed,
    sent_f: int | None,
    sent_b: int | None,
) -> tuple[int | None, int | None]:
    """Append one forward and one backward layer in the order of the module docstring."""
    (i, f), (j, b) = forward, backward
    exchange_b = b.backward_exchange if b else None
    arrived_b, arrived_f = _arrive_backward(program, exchange_b, j, sent_b), sent_f
    if f:
        arrived_f = program.compute(f"attn(F) {i}", f.attn["F"], sent_f)
        if f.forward_exchange:
            cost = f.forward_exchange
            arrived_f = program.exchange(f"dispatch(F) {i}", cost.first, arrived_f, cost.first_glue)
    if b:
        home_b = program.compute(f"mlp(B) {j}", b.mlp["B"], arrived_b)
        if kind == "FB":
            program.compute(f"mlp(W) {j}", b.mlp["W"])
        elif kind == "B":
            home_b = program.compute(f"mlp(W) {j}", b.mlp["W"], home_b)
        if exchange_b:
            home_b = program.exchange(f"dispatch(B) {j}", exchange_b.second, home_b)
    if f:
        sent_f = program.compute(f"mlp(F) {i}", f.mlp["F"], arrived_f)
        if f.forward_exchange:
            sent_f = program.exchange(f"combine(F) {i}", f.forward_exchange.second, sent_f)
    if b:
        sent_b = program.compute(f"attn(B) {j}", b.attn["B"], home_b)
        if kind == "FB":
            program.compute(f"attn(W) {j}", b.attn["W"])
        elif kind == "B":
            sent_b = program.compute(f"attn(W) {j}", b.attn["W"], sent_b)
    return sent_f, sent_b


def _arrive_backward(
    program: _Program, exchange: ExchangeCost | None, layer: int, sent_b: int | None
) -> int | None:
    if exchange is None:
        return sent_b
    return program.exchange(f"combine(B) {layer}", exchange.first, sent_b, exchange.first_glue)


def _settle(
    kind: StepKind, rank: TaskGraph, alone: Floats, factor: Floats, on_comm: Mask, engine: Engine
) -> ChunkPlay:
    """Play, measure what ran beside what, slow it down, and play again until nothing changes."""
    ranks = len(alone)
    graph = tile(rank, alone)
    timeline = engine(graph)
    slowed = alone
    for rounds in range(1, ROUNDS_MAX):
        beside = _fraction_beside(timeline, ranks, on_comm)
        wanted = alone * slowdown(factor, work_share(factor, beside))
        slowed = wanted if rounds <= UNDAMPED_ROUNDS else (slowed + wanted) / 2
        before, timeline = timeline.makespan_s, engine(graph.with_durations(slowed.ravel()))
        if abs(timeline.makespan_s - before) <= SETTLED * before:
            return ChunkPlay(kind, timeline, ranks, rounds + 1)
    raise MoesimError(f"chunk {kind}: overlap and durations do not agree in {ROUNDS_MAX} rounds")


def _fraction_beside(timeline: Timeline, ranks: int, on_comm: Mask) -> Floats:
    """Return (ranks, tasks): the share of each task while its rank's other stream works."""
    start = timeline.start_s.reshape(ranks, -1)
    end = timeline.end_s.reshape(ranks, -1)
    # (ranks, communication, compute) seconds that two tasks run side by side.
    both_end = np.minimum(end[:, on_comm, None], end[:, None, ~on_comm])
    both = np.maximum(both_end - np.maximum(start[:, on_comm, None], start[:, None, ~on_comm]), 0.0)
    beside = np.zeros_like(start)
    beside[:, on_comm], beside[:, ~on_comm] = both.sum(axis=2), both.sum(axis=1)
    length = end - start
    return np.asarray(np.divide(beside, length, out=np.zeros_like(length), where=length > 0))
