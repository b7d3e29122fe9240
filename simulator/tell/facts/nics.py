"""What met on NICs, where a run shares them; pure functions of a played step."""

from hwmodels.arrays import Floats
from hwmodels.spec import Spec
from simulator.lower.played import Played
from simulator.lower.shared_nics import TRAFFIC


class NicFacts(Spec):
    """How far shared NICs change a step.

    Attributes:
        separate_step_s: the same step if each kind of traffic had a NIC to itself.
        busy_s: seconds that each kind of traffic needs of its sender's NIC, mean over pipeline
            ranks.
        delay_s: seconds by which others on its NICs lengthened it, mean over pipeline ranks.
    """

    separate_step_s: float
    busy_s: dict[str, float]
    delay_s: dict[str, float]


def nic_facts(played: Played) -> NicFacts | None:
    """Return what met on the NICs of a pipeline; None where they are not shared."""
    shared = played.shared
    if shared is None:
        return None

    def means(seconds: Floats) -> dict[str, float]:
        by_kind = shared.by_traffic(seconds).mean(axis=1).clip(min=0.0)  # rounding may fall below
        return dict(zip(TRAFFIC, by_kind.tolist(), strict=True))

    return NicFacts(
        separate_step_s=played.folded_timeline.makespan_s,
        busy_s=means(shared.alone.nic_s),
        delay_s=means(shared.delay_s),
    )
