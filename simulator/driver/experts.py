"""The expert group of an experiment: where its loads put experts, and what then lasts of them."""

from functools import lru_cache

import numpy as np

from hwmodels.arrays import Floats
from simulator.experiment import Experiment
from simulator.lower.spread import lasting_popularity
from simulator.ranks import ExpertLoadSpec, ExpertPlacementSpec
from workloads.blocks.moe import MoESpec
from workloads.eplb import eplb
from workloads.experts import Capacity, ExpertGroup, Table
from workloads.routing import correlated, zipf_expert_load

MICROBATCHES = 32
"""Drawn ones whose mean stands for what lasts: as many as a pipeline of 16 ranks holds at most."""


def expert_group(experiment: Experiment) -> ExpertGroup | None:
    """Return where the experts of an experiment lie; None where they lie in order, take all that
    comes, and no load is known to last.

    Loads of ranks that are drawn from `lognormal`, which names no experts, are taken to even out
    over the micro-batches in flight, and so are those that each micro-batch draws anew.
    """
    ranks, communication, model = experiment.ranks, experiment.communication, experiment.model
    factor, moe, load = communication.capacity_factor, model.moe, ranks.expert_load
    if moe is None:
        return None
    lasts = load.kind in ("matrix", "measured") or (
        load.kind == "zipf" and load.is_drawn and load.correlation > 0
    )
    if factor is None and not lasts:
        return None
    return _group(
        moe,
        load,
        ranks.expert_placement,
        None if factor is None else Capacity(factor, communication.pad_to_capacity),
        experiment.plan.ep,
        experiment.cluster.node.gpus,
        model.routed_layers,
        ranks.seed,
    )


def sent_share(experiment: Experiment) -> float:
    """Return the share of a rank's copies that leave it: less where experts have a capacity and
    drop tokens, more where they pad to it.
    """
    group = expert_group(experiment)
    return 1.0 if group is None or group.capacity is None else group.routed


@lru_cache(maxsize=256)
def _group(
    moe: MoESpec,
    load: ExpertLoadSpec,
    placement: ExpertPlacementSpec,
    capacity: Capacity | None,
    ep: int,
    gpus_per_node: int,
    layers: int,
    seed: int,
) -> ExpertGroup:
    experts = moe.routed_experts
    if load.kind == "matrix":
        given = np.array(load.loads)
        lasting = given / given.mean(axis=1, keepdims=True)
        return ExpertGroup(ep, experts, lasting=Table.of(lasting))
    sampled = _expert_loads(moe, load, layers, seed)
    kept = sampled if capacity is None else capacity.kept(sampled)
    mean = kept.mean(axis=0)
    if load.is_drawn and not load.correlation and load.kind == "zipf":
        mean = np.full((1, experts), mean.mean())  # every expert is as popular as others
    slots = None
    if placement.policy == "eplb":
        nodes = ep // gpus_per_node if ep % gpus_per_node == 0 else 1
        total = experts + placement.redundant_experts
        slots = Table.of(eplb(mean, total, moe.groups, max(nodes, 1), ep))
    group = ExpertGroup(ep, experts, slots)
    lasting = group.rank_loads(mean, np.arange(len(mean)))
    dropped = 0.0 if capacity is None else capacity.dropped(sampled)
    return ExpertGroup(ep, experts, slots, capacity, Table.of(lasting), dropped)


def _expert_loads(moe: MoESpec, load: ExpertLoadSpec, layers: int, seed: int) -> Floats:
    """Return (micro-batches, layers, experts) loads of mean 1; one row stands for all layers, and
    one micro-batch for all where nothing is drawn.
    """
    experts = moe.routed_experts
    if load.kind == "measured":
        counts = np.array(load.counts)
        return np.asarray(counts / counts.mean(axis=1, keepdims=True))[None]
    if not load.is_drawn:
        return np.ones((1, 1, experts))
    fresh = np.random.default_rng(seed).standard_normal((MICROBATCHES, layers, experts))
    z = correlated(lasting_popularity(seed, layers, experts), fresh, load.correlation)
    return zipf_expert_load(z, load.exponent, 1 / moe.top_k)
