"""The order of steps of one rank that runs two model chunks, while it is written.

Chunk 0 and chunk 1 are the two stages that the rank works on: of DualPipe its near and its far
direction, of a V-shape the way down and the way back.
"""

from collections import deque
from collections.abc import Sequence

from workloads.schedules.step import Chunk, Step


class RankOrder:
    """Steps so far, and the next micro-batch of each chunk and pass."""

    def __init__(self, stages: Sequence[int], first: Sequence[int] = (0, 0)) -> None:
        """Start with nothing.

        Args:
            stages: of chunk 0 and chunk 1.
            first: micro-batch that each begins with.
        """
        self.stages = tuple(stages)
        self.next_forward = list(first)
        self.next_backward = list(first)
        self.put_off: deque[tuple[int, Chunk]] = deque()
        self.steps: list[Step] = []

    def forward(self, chunk: int) -> None:
        """Add the next forward of a chunk."""
        self.steps.append(Step("F", self._take(self.next_forward, chunk)))

    def backward(self, chunk: int, *, put_off_weights: bool = False) -> None:
        """Add the next backward of a chunk."""
        taken = self._take(self.next_backward, chunk)
        if put_off_weights:
            self.put_off.append((chunk, taken))
        self.steps.append(Step("Bi" if put_off_weights else "B", None, taken))

    def pair(self, forward: int, backward: int) -> None:
        """Add the next forward of one chunk overlapped with the next backward of the other."""
        f, b = self._take(self.next_forward, forward), self._take(self.next_backward, backward)
        self.steps.append(Step("FB", f, b))

    def weight(self, chunk: int | None = None) -> None:
        """Add the oldest weight gradient that was put off: of all, or of one chunk."""
        place = 0
        if chunk is not None:
            place = next(at for at, (of, _) in enumerate(self.put_off) if of == chunk)
        self.steps.append(Step("W", None, self.put_off[place][1]))
        del self.put_off[place]

    def _take(self, counters: list[int], chunk: int) -> Chunk:
        counters[chunk] += 1
        return Chunk(self.stages[chunk], counters[chunk] - 1)
