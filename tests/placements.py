"""Random jobs on random clusters, small enough to be played in no time, for tests of links."""

from hypothesis import strategies as st

from simulator import Experiment
from workloads.schedules import SCHEDULES

SMALL_MODEL = {
    "model.layers": 4,
    "model.moe.routed_experts": 96,
    "model.moe.groups": 1,
    "model.moe.groups_per_token": 1,
    "communication.routed_nodes_max": 1000,
    "plan.layout": "none",
    "cluster.node.chip.hbm_capacity_bytes": "80 TB",
    "ranks.draws": 1,
}
"""DeepSeek-V3 cut down to seven units: four layers, an MTP module and two heads. Tokens may go to
any node, and memory is no matter.
"""


def job(changes=()):
    """Return an experiment with the small model, changed by a mapping."""
    return Experiment.load("deepseek-v3-pretrain").with_overrides(SMALL_MODEL | dict(changes))


@st.composite
def jobs(draw, nodes=None):
    """Changes that lay a random plan over nodes of any size, as many as it takes or as given.

    Groups and hops lie over nodes as they happen to: inside, across, evenly or not.
    """
    schedule = draw(st.sampled_from(sorted(SCHEDULES)))
    most = min(4, 7 // SCHEDULES[schedule].stages(1))
    pp = draw(st.sampled_from([2, 4] if schedule == "dualpipe" else range(1, most + 1)))
    ep = draw(st.sampled_from([1, 2, 3, 4, 6]))
    width = ep * draw(st.sampled_from([1, 2, 3]))
    ranks = pp * width
    per_node = draw(st.integers(1, 12)) if nodes is None else -(-ranks // nodes)
    return {
        "plan.pp": pp,
        "plan.ep": ep,
        "plan.dp": width,
        "plan.zero": draw(st.sampled_from([0, 1])),
        "plan.schedule": schedule,
        "model.tied_embedding": draw(st.booleans()),
        "cluster.nodes": -(-ranks // per_node),
        "cluster.node.gpus": per_node,
        "cluster.node.nics": per_node,
        "cluster.fabric.planes": 1,
        "batch.sequences": width * 2 * pp,
    }
