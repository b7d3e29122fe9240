"""Where the numbers of a result come from."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from hwmodels.document import Source
from hwmodels.spec import Spec
from simulator.lower.played import Played
from simulator.tell.facts.kernels import shares


class Provenance(Spec):
    """Where the numbers come from.

    Attributes:
        profile_sha256: hash of the profile's values; None for the roofline.
        time_share_by_basis: share of compute time by what it was priced from.
        communication_basis: what exchanges, messages and gradient collectives were priced from.
        sources: by dotted path of the resolved experiment; `assumed` marks guesses.
        folding: what was played once for many.
        notes: what else to know, such as values far from every known part, and families of kernels
            that the profile does not have.
        expert_routing: whose rule says where tokens may go, the model's own or
            `communication.routed_nodes_max`, and what it comes to; None without experts.
    """

    version: str
    seed: int
    profile: str | None
    profile_sha256: str | None
    time_share_by_basis: dict[str, float]
    communication_basis: str
    folding: str
    expert_routing: str | None = None
    sources: dict[str, Source]
    notes: tuple[str, ...] = ()


def provenance(played: Played) -> Provenance:
    """Return where the numbers of a played step come from."""
    experiment = played.experiment
    profile = experiment.profile
    return Provenance(
        version=_version(),
        seed=experiment.ranks.seed,
        profile=profile.name if profile else None,
        profile_sha256=_sha256(profile.model_dump_json()) if profile else None,
        time_share_by_basis=shares(played, lambda timed_op: timed_op.basis),
        communication_basis=_communication_basis(played),
        folding=_folding(played),
        expert_routing=_expert_routing(played),
        sources=experiment.sources,
        notes=(*experiment.notes, *_stand_ins(played)),
    )


def _stand_ins(played: Played) -> tuple[str, ...]:
    """Return in words which kernels rest on something else than most: what a profile lacks."""
    common = played.pricer.kernels.basis
    found = dict.fromkeys(timed_op.basis for timed_op in played.op_seconds)
    return tuple(f"kernels priced from {basis}" for basis in found if basis != common)


def _communication_basis(played: Played) -> str:
    basis = played.pricer.exchanges.rates.basis
    if not played.experiment.exchanges:
        basis = f"{basis}; no expert exchange, so that compute has all SMs"
    return basis if played.fabric is None else f"{basis}; {played.fabric}"


def _expert_routing(played: Played) -> str | None:
    """Return in words whose rule routes tokens, and to how many nodes and GPUs.

    Of groups that lie over nodes in several ways, those whose tokens go to the most.
    """
    experiment, layouts = played.experiment, played.program.routing
    moe, limit = experiment.model.moe, experiment.communication.routed_nodes_max
    if moe is None or not layouts:
        return None
    copies = max(layouts, key=lambda layout: layout.nodes_per_token)
    rule = f"the model's own rule, {moe.rule}"
    if limit is not None:
        rule = f"communication.routed_nodes_max = {limit} instead of {rule}"
    return (
        f"{rule}: {copies.nodes_per_token:.2f} of {copies.nodes} nodes and "
        f"{copies.gpus_per_token:.2f} of {copies.gpus} GPUs a token"
    )


def _folding(played: Played) -> str:
    """Return in words what was played once for many."""
    experiment, parts = played.experiment, played.lowered.parts
    ep, pp = experiment.plan.ep, experiment.plan.pp
    pipelines = experiment.pipelines
    draws = played.folded.draw.draws
    idle = experiment.cluster.gpus - experiment.gpus
    spare = f"; {idle} of {experiment.cluster.gpus} GPUs idle" if idle else ""
    if played.explicit is not None:
        nics = ", all that a GPU sends on its NIC" if played.explicit.meetings else ""
        return (
            f"every rank played: {pipelines} pipelines of {pp}, {ep} ranks in lock-step{nics};"
            f" what slows kernels and exchanges beside each other from {len(parts)} folded parts"
            f"{spare}"
        )
    shared = (
        "; its segments played as on the slowest rank of each part, to meet on shared NICs"
        if played.shared is not None
        else ""
    )
    return (
        f"{pipelines} pipelines played as one of {pp} ranks; {len(parts)} distinct parts played "
        f"on {ep} ranks in lock-step, with {draws} draws of the expert load each{shared}{spare}"
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _version() -> str:
    try:
        return version("moesim")
    except PackageNotFoundError:
        return "uninstalled"
