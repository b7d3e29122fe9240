"""Parts: what one step of a pipeline program does on one rank, segment by segment.

A segment is a run of kernels that nothing interrupts, or one communication. It ends where a block
does, where the stream changes and where ranks communicate.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

from workloads.ops import Comm, Stream, Work


class Label(NamedTuple):
    """What a segment is of, for phases, traces and joins.

    Attributes:
        block: of a run of kernels; of a communication, its name.
        pass_: name of the pass.
        layer: place in its stage.
        note: what else to say.
    """

    block: str
    pass_: str
    layer: int
    note: str = ""

    def __str__(self) -> str:
        """Return `attn(F) 2`, `dispatch(B) 0`, `dispatch(F) 0 layout` ..., for people."""
        return f"{self.block}({self.pass_}) {self.layer}{self.note and ' '}{self.note}"


class Segment(NamedTuple):
    """One entry of a part.

    Attributes:
        work: kernels, or one communication.
        after: segments it waits for, besides the one before it in its stream.
        load: which of the part's expert loads it meets; -1 for none.
    """

    stream: Stream
    work: tuple[Work, ...]
    after: tuple[int, ...]
    label: Label
    load: int = -1

    @property
    def comm(self) -> Comm | None:
        """The communication, if it is one: all ranks of the group start it together."""
        only = self.work[0]
        return only if isinstance(only, Comm) else None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A distinct list of segments; steps run it.

    Attributes:
        key: tells it from others.
        kind: of step that runs it, for people.
        name: short, for people; title: in words.
        loads: expert loads that it meets.
        overlapped: whether it has two passes side by side, so that one computes while the other
            communicates.
    """

    key: Hashable
    kind: str
    name: str
    title: str
    segments: tuple[Segment, ...]
    loads: int
    overlapped: bool
