"""Single GPUs, NICs and NVLinks that are slower than the others."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hwmodels.spec import Spec

SLOWEST = 1e6
"""Of one part, whatever adds up."""


class StragglerSpec(Spec):
    """One GPU that is slower than the others.

    Attributes:
        gpu: its rank; `moesim` numbers GPUs pipeline rank by pipeline rank (`workloads.parallel`).
        part: what of it is slow: its kernels, its NIC, or its NVLink.
        slowdown: time / normal time; several of one part multiply.
    """

    gpu: Annotated[int, Field(ge=0, lt=10**9, strict=True)]
    part: Literal["gpu", "nic", "nvlink"] = "gpu"
    slowdown: Annotated[float, Field(ge=1, le=1000)]


def _none_stands_still(stragglers: tuple[StragglerSpec, ...]) -> tuple[StragglerSpec, ...]:
    """Refuse what together is slower than anything that still works."""
    slowdowns: dict[str, float] = {}
    for each in stragglers:
        part = f"{each.part} of GPU {each.gpu}"
        slowdowns[part] = slowdowns.get(part, 1.0) * each.slowdown
        if slowdowns[part] > SLOWEST:
            raise ValueError(f"{part}: must be at most {SLOWEST:g} times as slow, got more")
    return stragglers


Stragglers = Annotated[tuple[StragglerSpec, ...], AfterValidator(_none_stands_still)]
