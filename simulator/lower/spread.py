"""How ranks differ: the loads of their experts, the speed of their GPUs, jitter, stragglers.

Everything is drawn here, from one seed, group by group: what one group draws does not depend on how
many others there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from hwmodels.arrays import Floats, Ints
from simulator.lower.lowered import Lowered
from workloads.program import Program
from workloads.routing import correlated, lognormal_load, zipf_expert_load, zipf_load

EVERY_GROUP = 1 << 40
"""Names the random stream of what all groups share; no group has that number."""


class Straggler(Protocol):
    """One part of a GPU, `gpu`, `nic` or `nvlink`, that is slower than the others'."""

    @property
    def gpu(self) -> int:
        """Its rank."""

    @property
    def part(self) -> str:
        """What is slow."""

    @property
    def slowdown(self) -> float:
        """Time / normal time."""


class LoadSpread(Protocol):
    """How unevenly tokens spread over the ranks of an expert group (`simulator.ranks`)."""

    @property
    def kind(self) -> str:
        """`balanced`, `lognormal`, `zipf`, `matrix` or `measured`."""

    @property
    def sigma(self) -> float:
        """Of `lognormal` and of `measured`."""

    @property
    def exponent(self) -> float:
        """Of `zipf`."""

    @property
    def correlation(self) -> float:
        """Of the loads of one layer in two micro-batches."""

    @property
    def loads(self) -> tuple[tuple[float, ...], ...]:
        """Of `matrix`."""

    @property
    def counts(self) -> tuple[tuple[float, ...], ...]:
        """Of `measured`."""

    @property
    def is_drawn(self) -> bool:
        """Whether chance decides who is loaded."""


class Spread(Protocol):
    """How ranks differ; hashable, and equal where nothing is unlike (`simulator.ranks`)."""

    @property
    def expert_load(self) -> LoadSpread:
        """Of tokens."""

    @property
    def draws(self) -> int:
        """Loads of each distinct part where they are drawn."""

    @property
    def gpu_speed_sigma(self) -> float:
        """Of the logarithm of a GPU's time."""

    @property
    def jitter(self) -> float:
        """Relative spread of a step's time."""

    @property
    def stragglers(self) -> Sequence[Straggler]:
        """Single slow parts."""

    @property
    def seed(self) -> int:
        """Of everything drawn."""

    def __hash__(self) -> int:
        """Return the hash of what it holds."""


@dataclass(frozen=True, slots=True, eq=False)
class GroupDraw:
    """What sets the ranks of one expert group of pipelines apart.

    A group is `ep` pipelines side by side: one expert group on every pipeline rank.

    Attributes:
        group: its number.
        load: (slots, ep) expert load of each micro-batch on each routed layer.
        slowness: (pp, ep) time / normal time of each GPU's kernels.
        nic, nvlink: (pp, ep) the same of its links.
        jitter: (steps, ep) time / expected time of each step's kernels.
    """

    group: int
    load: Floats
    slowness: Floats
    nic: Floats
    nvlink: Floats
    jitter: Floats

    @property
    def links(self) -> Floats:
        """(pp, ep) slowdown of the slower of a rank's links."""
        return np.maximum(self.nic, self.nvlink)


@dataclass(frozen=True, slots=True, eq=False)
class LoadDraw:
    """What the ranks of one expert group of folded parts meet; read only, as many may share it.

    Attributes:
        loads: (slots, draws, ranks) expert loads of all distinct parts, one after another.
        of_step: (steps,) the draw that each step of the program takes.
        ranks: to play: one stands for the group where all are alike.
        least, most: loads to have prices for.
    """

    loads: Floats
    of_step: Ints
    ranks: int
    least: float
    most: float

    @property
    def draws(self) -> int:
        """How many loads each part meets."""
        return int(self.loads.shape[1])


@lru_cache(maxsize=32)
def draw_loads(ranks: Spread, lowered: Lowered) -> LoadDraw:
    """Draw the loads of all distinct parts, and which of them each step meets."""
    rng = np.random.default_rng(ranks.seed)
    draws = ranks.draws if ranks.expert_load.is_drawn else 1
    loads = part_loads(ranks, lowered, draws, rng)
    least, most = likely_loads(ranks, lowered.program)
    by_slot = np.ascontiguousarray(loads.swapaxes(0, 1))
    by_slot.flags.writeable = False
    return LoadDraw(
        by_slot,
        of_step=rng.integers(draws, size=len(lowered.steps)),
        ranks=loads.shape[2] if (loads != loads[..., :1]).any() else 1,
        least=float(loads.min(initial=least)),
        most=float(loads.max(initial=most)),
    )


def part_loads(ranks: Spread, lowered: Lowered, draws: int, rng: np.random.Generator) -> Floats:
    """Return (draws, slots, ranks) expert loads of all distinct parts, one after another.

    Draws stand for micro-batches: they differ in what does not last. A part that stands for
    several stages has the layers of those that play it first.
    """
    loads = lowered.program.loads
    layers = np.concatenate([loads.layer[steps[0]] for steps in loads.of_part])
    fresh = rng.standard_normal((draws, len(layers), drawn_units(ranks, lowered.program)))
    return _loads(ranks, lowered.program, fresh, layers)


def draw_group(ranks: Spread, lowered: Lowered, slot_layer: Ints, group: int) -> GroupDraw:
    """Draw one expert group of pipelines.

    Args:
        slot_layer: (slots,) number, in the model, of the routed layer that meets each load.
        group: its number.
    """
    program = lowered.program
    mesh = program.placement.mesh
    pp, ep = mesh.size("pp"), mesh.size("ep")
    # A stream for each purpose: who changes one of them meets the same chance in the others.
    popularity, speed, noise = (
        np.random.default_rng((ranks.seed, group, purpose)) for purpose in range(3)
    )
    fresh = np.zeros((len(slot_layer), drawn_units(ranks, program)))
    if ranks.expert_load.is_drawn and ranks.expert_load.correlation < 1:
        fresh = popularity.standard_normal(fresh.shape)
    slowness = np.exp(ranks.gpu_speed_sigma * speed.standard_normal((pp, ep)))
    jitter = np.ones((len(lowered.steps), ep))
    if ranks.jitter:
        sigma = np.sqrt(np.log1p(ranks.jitter**2))
        jitter = np.exp(sigma * noise.standard_normal(jitter.shape) - sigma**2 / 2)
    parts = {"gpu": slowness, "nic": np.ones((pp, ep)), "nvlink": np.ones((pp, ep))}
    for straggler in ranks.stragglers:
        rank = int(mesh.at("pp", straggler.gpu))
        of_group, member = np.argwhere(program.placement.expert_groups[rank] == straggler.gpu)[0]
        if of_group == group:
            parts[straggler.part][rank, member] *= straggler.slowdown
    return GroupDraw(
        group,
        _loads(ranks, program, fresh, slot_layer),
        parts["gpu"],
        parts["nic"],
        parts["nvlink"],
        jitter,
    )


def likely_loads(ranks: Spread, program: Program) -> tuple[float, float]:
    """Return loads that hardly any rank is below or above: five sigma, or what the kind of load
    allows.
    """
    load, ep = ranks.expert_load, program.placement.mesh.size("ep")
    if load.kind == "lognormal":
        widest = float(np.exp(5 * np.sqrt(np.log1p(load.sigma**2))))
        return 1 / widest, min(ep, widest)
    if load.kind == "zipf":
        order = -np.arange(drawn_units(ranks, program), dtype=np.float64)
        return 0.0, float(zipf_load(order, load.exponent, ep, _share_max(program)).max())
    given = _lasting(load, program)
    least, most = float(given.min(initial=1.0)), float(given.max(initial=1.0))
    if load.kind == "measured":
        widest = float(np.exp(5 * np.sqrt(np.log1p(load.sigma**2))))
        return least / widest, min(ep, most * widest)
    return least, most


def _share_max(program: Program) -> float:
    """Largest share of all rows that one expert can have: a token goes to distinct experts."""
    return 1 / program.top_k if program.top_k else 1.0


def drawn_units(ranks: Spread, program: Program) -> int:
    """What popularity is drawn for: ranks, or for `zipf` single experts."""
    load = ranks.expert_load
    drawn_by_expert = load.kind == "zipf" or (load.kind == "measured" and load.is_drawn)
    return (drawn_by_expert and program.experts) or program.placement.mesh.size("ep")


def _loads(ranks: Spread, program: Program, fresh: Floats, layers: Ints) -> Floats:
    """Return (..., slots, ranks) loads from standard normals; `layers` are those of the slots."""
    load, group = ranks.expert_load, program.expert_group
    ep, units = program.placement.mesh.size("ep"), drawn_units(ranks, program)
    if not load.is_drawn:
        lasting = _lasting(load, program)
        by_slot = lasting[np.minimum(layers, len(lasting) - 1)]
        return np.array(np.broadcast_to(by_slot, (*fresh.shape[:-1], ep)))
    popularity = lasting_popularity(ranks.seed, program.loads.layers, units)
    z = correlated(popularity[layers], fresh, load.correlation)
    if load.kind == "lognormal":
        return lognormal_load(z, load.sigma)
    if group is None or (load.kind == "zipf" and group.is_plain):
        return zipf_load(z, load.exponent, ep, _share_max(program))
    return group.rank_loads(_of_experts(load, program, z, layers), layers)


def _of_experts(load: LoadSpread, program: Program, z: Floats, layers: Ints) -> Floats:
    """Return (..., slots, experts) drawn loads of mean 1."""
    if load.kind == "zipf":
        return zipf_expert_load(z, load.exponent, _share_max(program))
    counts = np.array(load.counts)
    met = counts[np.minimum(layers, len(counts) - 1)] * lognormal_load(z, load.sigma)
    return np.asarray(met / met.mean(axis=-1, keepdims=True))


def _lasting(load: LoadSpread, program: Program) -> Floats:
    """Return (layers, ranks) loads that every micro-batch meets; one row stands for all layers."""
    group = program.expert_group
    if group is not None and group.lasting is not None:
        return group.lasting.values
    given = np.array(load.loads or [[1.0] * program.placement.mesh.size("ep")])
    return np.asarray(given / given.mean(axis=1, keepdims=True))


def lasting_popularity(seed: int, layers: int, units: int) -> Floats:
    """Return (routed layers, units) standard normals: how popular the experts of a layer stay.

    One popularity a layer, met by all micro-batches in every group and on every rank that holds the
    layer: the same experts sit there. Experts of two layers have nothing to do with each other.
    """
    lasting = np.random.default_rng((seed, EVERY_GROUP))
    return lasting.standard_normal((layers, units))
