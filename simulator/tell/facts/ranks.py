"""What single ranks did, where every rank was played; pure functions of a played step."""

import numpy as np

from hwmodels.spec import Spec
from simulator.lower.explicit import ExplicitPlay
from simulator.lower.played import Played
from simulator.tell.facts.critical_path import critical_path_s
from workloads.mesh import Mesh
from workloads.phases import IDLE

WAITED_FOR_SHOWN = 10


class WaitedFor(Spec):
    """A GPU that others waited for in exchanges.

    Attributes:
        gpu: its rank.
        caused_s: seconds that it cost all others of its group together: waiting for it when it came
            last, and what its slow NIC or NVLink added to their exchanges.
        waiting: the first and the last GPU of its expert group, which are those that waited.
    """

    gpu: int
    caused_s: float
    waiting: tuple[int, int]


class RankFacts(Spec):
    """Where the time of every GPU went; GPU `p dp + d` is pipeline rank p of pipeline d.

    Attributes:
        compute_s, communication_s: work on the two streams, by GPU; they overlap.
        wait_s: waiting for other ranks in exchanges, by GPU.
        bubble_s: neither steps of the pipeline nor optimizer, by GPU.
        caused_s: what this GPU cost the others of its expert group, as in `WaitedFor`.
        waited_for: the GPUs that held the others up most.
        critical_path_s: seconds of the chain of work that the step could not have been shorter
            without, by kernel family; `dispatch`, `combine`, messages and optimizer among them.
        folded_step_s: the same step folded: without spread of GPUs, jitter, stragglers and faults
            that only some ranks feel, and with chunks that end together.
    """

    compute_s: tuple[float, ...]
    communication_s: tuple[float, ...]
    wait_s: tuple[float, ...]
    bubble_s: tuple[float, ...]
    caused_s: tuple[float, ...]
    waited_for: tuple[WaitedFor, ...]
    critical_path_s: dict[str, float]
    folded_step_s: float


def rank_facts(played: Played) -> RankFacts | None:
    """Return what every rank did; None where they were folded.

    Raises:
        InputError: the timeline of the group that ended the step was not kept.
    """
    play = played.explicit
    if play is None:
        return None
    by_gpu = {
        "compute_s": play.compute_s,
        "communication_s": play.communication_s,
        "wait_s": play.wait_s,
        "bubble_s": play.phase_s[play.phases.index(IDLE)],
        "caused_s": play.blame_s,
    }
    return RankFacts(
        **{name: tuple(seconds.ravel().tolist()) for name, seconds in by_gpu.items()},
        waited_for=tuple(_waited_for(play, played.program.placement.mesh)),
        critical_path_s=critical_path_s(played.lowered, played.folded.prices, play),
        folded_step_s=played.folded_timeline.makespan_s,
    )


def _waited_for(play: ExplicitPlay, mesh: Mesh) -> list[WaitedFor]:
    """Return the GPUs that held the others of their expert group up most, the worst first."""
    caused_s = play.blame_s.ravel()
    groups = mesh.groups("ep")
    worst = np.argsort(-caused_s, kind="stable")[:WAITED_FOR_SHOWN]
    return [
        WaitedFor(gpu=gpu, caused_s=caused_s[gpu], waiting=(int(group[0]), int(group[-1])))
        for gpu, group in zip(worst.tolist(), groups[mesh.group_at(["ep"], worst)], strict=True)
        if caused_s[gpu] > 0
    ]
