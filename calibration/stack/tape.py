"""A tape: steps over named buffers, played in order.

A step touches no buffer but those it names, for it is given no other; and it reads only what was
given or what a step before it wrote. Nothing is allocated that outlives a step, and no step waits
for the device, so that a tape can be captured as a CUDA graph.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Run = Callable[[Sequence[Tensor], Sequence[Tensor]], object]
"""What a step does with the buffers it reads and those it writes, each in the order of its names.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One op of a layer.

    Attributes:
        op: its name, unique in its tape; the workload's where it is an op of the workload.
        where: block and pass as the workload names them, `attn(F)`; `decode` where it decodes.
        kernel: a file of `kernels`, or `torch.NAME` where the library does it.
        shape: as the kernel's `inputs` and `work` take it.
        run: does it; reads, writes: the buffers it is given. What it changes stands in both.
    """

    op: str
    where: str
    kernel: str
    shape: Mapping[str, Any]
    run: Run
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def ours(self) -> bool:
        """Whether the kernel is one of ours."""
        return not self.kernel.startswith("torch.")


class Tape:
    """Steps in order, and the buffers they work on.

    Attributes:
        buffers: by name; tapes that follow each other share them.
        given: names of those that hold something before the tape is played.
    """

    def __init__(
        self, buffers: Mapping[str, Tensor], given: Iterable[str], steps: Iterable[Step]
    ) -> None:
        """Take steps that keep the law of a tape.

        Raises:
            ValueError: two steps share a name, a buffer does not exist, or a step reads what
                nothing before it wrote.
        """
        self.buffers, self.given, self.steps = buffers, frozenset(given), tuple(steps)
        held, seen = set(self.given), set[str]()
        for step in self.steps:
            if step.op in seen:
                raise ValueError(f"step {step.op!r}: there is one of that name already")
            for name in (*step.reads, *step.writes):
                if name not in buffers:
                    raise ValueError(f"step {step.op!r}: no buffer {name!r}")
            early = [name for name in step.reads if name not in held]
            if early:
                raise ValueError(f"step {step.op!r}: reads {early[0]!r} before it is written")
            held.update(step.writes)
            seen.add(step.op)
        self.held = frozenset(held)

    def bound(self, step: Step) -> Callable[[], object]:
        """Return a function that plays one step."""
        reads = [self.buffers[name] for name in step.reads]
        writes = [self.buffers[name] for name in step.writes]
        return lambda: step.run(reads, writes)

    def bound_all(
        self, without: Collection[str] = (), then: Callable[[], object] | None = None
    ) -> Callable[[], None]:
        """Return a function that plays all steps but those of these names.

        Args:
            then: is done after each of them, such as waiting for the device.
        """
        runs = [self.bound(step) for step in self.steps if step.op not in without]

        def play() -> None:
            for run in runs:
                run()
                if then is not None:
                    then()

        return play
