"""What met on NICs, where a run shares them; pure functions of a run."""

from hwmodels.spec import Spec
from simulator.play.graph import Floats
from simulator.shared_nics import TRAFFIC, SharedNics


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


def nic_facts(play: SharedNics, separate_step_s: float) -> NicFacts:
    """Return what met on the NICs of a pipeline."""

    def means(seconds: Floats) -> dict[str, float]:
        by_kind = play.by_traffic(seconds).mean(axis=1).clip(min=0.0)  # rounding may fall below
        return dict(zip(TRAFFIC, by_kind.tolist(), strict=True))

    return NicFacts(
        separate_step_s=separate_step_s,
        busy_s=means(play.alone.nic_s),
        delay_s=means(play.delay_s),
    )
