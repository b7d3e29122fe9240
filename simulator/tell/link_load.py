"""How busy the links of a cluster were in a run."""

from dataclasses import dataclass

from hwmodels.arrays import Floats


@dataclass(frozen=True, slots=True)
class LinkLoad:
    """How busy links were: 1 is busy all the time.

    Attributes:
        title: what ran.
        fabric: (directed links of the topology,).
        nvlink: (gpus,) the busier direction of each.
    """

    title: str
    fabric: Floats
    nvlink: Floats
