"""Play the step of one experiment."""

from collections.abc import Collection

from simulator.driver.point import point_of
from simulator.driver.points import play_point
from simulator.experiment import Experiment
from simulator.lower.played import Played


def play(
    experiment: Experiment, *, pipelines: Collection[int] = (0,), critical: bool = False
) -> Played:
    """Play one training step.

    Args:
        pipelines: where all ranks are played, those whose timelines are kept, with their groups'.
        critical: keep there that of the group that ends the step, too.

    Raises:
        InfeasibleError: plan, layout, batch or memory cannot work, there is too much to play, or a
            price is not finite.
        OutOfRangeError: the profile lacks a kernel family.
    """
    return play_point(point_of(experiment), pipelines=pipelines, critical=critical)
