"""The one input document: what is trained, on what, split how.

Presets fill what a document does not say; overrides change single values, through presets if need
be (`cluster.node.chip`). Everything that cannot be run is refused here or by the scenario, before
anything is priced.
"""

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from hwmodels.cluster import ClusterSpec
from hwmodels.document import Document, Source
from hwmodels.errors import SpecError
from hwmodels.far_values import FarValue, far_values
from hwmodels.fields import with_numbers
from hwmodels.formats import FORMATS, NumberFormat
from hwmodels.profile import KernelProfile
from hwmodels.spec import (
    Catalogue,
    Spec,
    build,
    expand,
    override,
    read_document,
)
from hwmodels.units import Experts, Load, Parts, Seed, Share
from simulator.network.links import Routing
from simulator.stragglers import Stragglers
from workloads.batch import BatchSpec
from workloads.mesh import Mesh
from workloads.model import ModelSpec
from workloads.parallel import ParallelPlan


class PrecisionSpec(Spec):
    """Number formats of the training recipe.

    `fp8-blockwise` is DeepSeek-V3's: FP8 GEMMs with 1x128 and 128x128 scales, BF16 attention,
    router and head, FP32 gradients and master weights (arXiv 2412.19437 §3.3).
    """

    recipe: Literal["fp8-blockwise"] = "fp8-blockwise"


WIRE_FORMATS = {"fp8": FORMATS["fp8_1x128"], "bf16": FORMATS["bf16"]}


class CommunicationSpec(Spec):
    """The expert exchange, and the network that all traffic crosses.

    Attributes:
        sms: SMs that the kernels of the exchange hold; compute has the others. Where nothing is
            exchanged (a dense model, or `plan.ep` of 1), compute has all.
        lent_sms: share of these that compute has too in chunks that nothing overlaps: 0 where their
            kernels are built for as few SMs as those of overlapped chunks, 1 where for all.
        dispatch, combine: number formats on the wire; casts for others are not modelled yet.
        routed_nodes_max: nodes one token's experts may sit on, instead of the model's own rule
            (`MoESpec.groups_per_token`), which holds where this is left out.
        exposed_rate: rate of exchanges that no chunk overlaps, relative to the profile's, which was
            measured with nothing else running.
        nics: `separate`: exchanges, pipeline messages and gradient rings have a NIC each to
            themselves; `shared`: those of one GPU meet on its NIC.
        routing: how switches choose among equal paths; see `simulator.network.routing`. What `ecmp`
            hashes begins with `ranks.seed`.
    """

    sms: Parts = 20
    lent_sms: Annotated[float, Field(ge=0, le=1)] = 0.0
    dispatch: Literal["fp8"] = "fp8"
    combine: Literal["bf16"] = "bf16"
    routed_nodes_max: Experts | None = None
    exposed_rate: Share = 1.0
    nics: Literal["separate", "shared"] = "separate"
    routing: Routing = "adaptive"

    def exchange_slowdown(self, *, overlapped: bool) -> float:
        """Return by how much exchanges are slower than the rates of the library."""
        return 1.0 if overlapped else 1.0 / self.exposed_rate

    @property
    def dispatch_format(self) -> NumberFormat:
        """Format of dispatched tokens."""
        return WIRE_FORMATS[self.dispatch]

    @property
    def combine_format(self) -> NumberFormat:
        """Format of combined tokens."""
        return WIRE_FORMATS[self.combine]


class ExpertLoadSpec(Spec):
    """How unevenly tokens spread over the ranks of an expert group.

    Attributes:
        kind: `balanced`; `lognormal` rows per rank; `zipf` popularity of experts; `matrix`, given.
        sigma: of `lognormal`: standard deviation of a rank's rows, relative to the mean.
        exponent: of `zipf`: the k-th most popular expert draws tokens as k^-exponent.
        correlation: of a layer's loads in two micro-batches. 0 draws each anew, 1 keeps the same
            experts loaded; groups and ranks that hold them share what lasts. Layers do not.
        loads: of `matrix`: a row for each MoE layer in the model's order (MTP last), or one row for
            all, with a load for each rank of the group; rows are scaled to mean 1.
    """

    kind: Literal["balanced", "lognormal", "zipf", "matrix"] = "lognormal"
    sigma: Annotated[float, Field(ge=0, le=1)] = 0.0
    exponent: Annotated[float, Field(ge=0, le=3)] = 0.0
    correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    loads: tuple[tuple[Load, ...], ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether chance decides who is loaded."""
        return bool(
            (self.kind == "lognormal" and self.sigma) or (self.kind == "zipf" and self.exponent)
        )

    @model_validator(mode="after")
    def _matrix_has_loads(self) -> "ExpertLoadSpec":
        if (self.kind == "matrix") != bool(self.loads):
            raise ValueError(
                f"kind = 'matrix' and 'loads' come together, "
                f"got kind = {self.kind!r} and {len(self.loads)} rows of loads"
            )
        for number, row in enumerate(self.loads):
            if len(row) != len(self.loads[0]):
                raise ValueError(
                    f"loads: rows must be as long as the first, {len(self.loads[0])}, "
                    f"got {len(row)} in row {number}"
                )
            if not any(row):
                raise ValueError(f"loads: rows must have a load above 0, got none in row {number}")
        return self


EngineName = Literal["array", "reference"]


class RanksSpec(Spec):
    """Which ranks are played and how they differ.

    Attributes:
        play: `folded` plays one pipeline, and each distinct chunk on all ranks of one expert group;
            `explicit` plays every rank; `auto` folds where all ranks are alike: unless some are
            persistently loaded, slow, or jittery.
        draws: folded: expert loads drawn for each distinct chunk; every micro-batch takes one.
        engine: what plays the task graphs: `array`, compiled, or `reference`, the definition on
            SimPy processes; same times, to rounding.
        expert_load: how uneven the experts' tokens are.
        gpu_speed_sigma: standard deviation of the GPUs' speed, a static factor each, log-normal.
        jitter: standard deviation of the time of one chunk on one GPU, log-normal around mean 1.
        stragglers: single slow GPUs, NICs or NVLinks.
        seed: of everything drawn.
    """

    play: Literal["auto", "folded", "explicit"] = "auto"
    engine: EngineName = "array"
    expert_load: ExpertLoadSpec = ExpertLoadSpec()
    draws: Annotated[int, Field(ge=1, le=1000, strict=True)] = 8
    gpu_speed_sigma: Annotated[float, Field(ge=0, le=0.3)] = 0.0
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    stragglers: Stragglers = ()
    seed: Seed = 0

    @property
    def unlike(self) -> tuple[str, ...]:
        """What makes single ranks differ for good, so that folding would hide it."""
        load = self.expert_load
        differs = {
            "ranks.expert_load.correlation": load.is_drawn and load.correlation > 0,
            "ranks.expert_load.loads": any(len(set(row)) > 1 for row in load.loads),
            "ranks.gpu_speed_sigma": self.gpu_speed_sigma > 0,
            "ranks.jitter": self.jitter > 0,
            "ranks.stragglers": bool(self.stragglers),
        }
        return tuple(name for name, is_so in differs.items() if is_so)

    @property
    def is_explicit(self) -> bool:
        """Whether every rank is played."""
        return self.play == "explicit" or (self.play == "auto" and bool(self.unlike))


class UncertaintySpec(Spec):
    """How often inputs that carry a distribution are sampled; see `simulator.uncertainty`.

    Attributes:
        draws: steps played with sampled inputs, beside the one at the inputs' own values; 0: none.
        seed: of the samples; experiments with one seed share the samples of the inputs they share.
    """

    draws: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 0
    seed: Seed = 0


class Experiment(Spec):
    """One run: model x cluster x plan x batch, and how much detail is played."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+ -]+$", max_length=80)] = "experiment"
    model: ModelSpec
    cluster: ClusterSpec
    profile: KernelProfile | None = None
    plan: ParallelPlan
    batch: BatchSpec
    precision: PrecisionSpec = PrecisionSpec()
    communication: CommunicationSpec = CommunicationSpec()
    ranks: RanksSpec = RanksSpec()
    uncertainty: UncertaintySpec = UncertaintySpec()

    _document: Document = PrivateAttr(default_factory=Document)

    @classmethod
    def load(cls, name_or_path: str | Path) -> "Experiment":
        """Return the experiment in a TOML file, or the preset of that name.

        Raises:
            UnknownPresetError: neither a file nor a preset.
            SpecError: the document is malformed.
        """
        path = Path(name_or_path)
        # Unlike those of `Path` these hold for names that no file can have.
        if os.path.isdir(path) or path.suffix == ".json":
            raise SpecError(f"{path}: expected the name of a preset or a TOML file")
        if path.suffix == ".toml" or os.path.isfile(path):
            return cls.from_document(read_document(cls, path))
        return cls.from_document(EXPERIMENTS.document(str(name_or_path)))

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "Experiment":
        """Return the experiment a plain mapping describes, preset names allowed."""
        return cls.from_document(expand(cls, values))

    @classmethod
    def from_document(cls, document: Document) -> "Experiment":
        """Validate a document and keep its sources."""
        name = document.values.get("name")
        experiment = build(cls, document, name if isinstance(name, str) else "experiment")
        experiment._document = document
        experiment._check()
        return experiment

    def with_overrides(self, values: dict[str, Any], origin: str = "override") -> "Experiment":
        """Return a copy with single values changed: `{"cluster.fabric.planes": 4}`.

        Raises:
            SpecError: a path leads nowhere or a value does not fit.
        """
        own = self._document
        document = Document(deepcopy(own.values), dict(own.sources), set(own.given))
        for path, value in values.items():
            override(document, Experiment, path, value, origin)
        return Experiment.from_document(document)

    def with_numbers(self, numbers: Mapping[str, float]) -> "Experiment":
        """Return a copy with the number at each path replaced and every source left as it is.

        The same experiment as `with_overrides` gives, an order of magnitude faster.

        Raises:
            SpecError: a number is out of bounds, or breaks a rule between fields.
        """
        experiment = with_numbers(self, numbers)
        experiment._document = self._document
        experiment._check()
        return experiment

    @property
    def sources(self) -> dict[str, Source]:
        """Source of every value that has one, by dotted path."""
        return self._document.sources

    @property
    def far_values(self) -> tuple[FarValue, ...]:
        """Values that no preset states, and that are far from those of every known part."""
        return far_values(self, self._document)

    @property
    def unlike(self) -> tuple[str, ...]:
        """What makes single ranks differ for good."""
        return (*self.ranks.unlike, *self.unlike_links)

    @property
    def unlike_links(self) -> tuple[str, ...]:
        """What may make links slower for some ranks than for others.

        A whole plane is missed by all of them alike. Links between switches bind those whose bytes
        climb to them, unless leaves have as many up as down and bytes spread over all evenly.
        """
        cluster = self.cluster
        climbs = cluster.fabric.diameter(cluster.endpoints) > 1
        differs = {
            "cluster.faults": any(fault.kind != "plane" for fault in cluster.faults),
            "cluster.fabric.oversubscription": climbs and cluster.fabric.tapered,
            "communication.routing": climbs and self.communication.routing != "adaptive",
        }
        return tuple(name for name, is_so in differs.items() if is_so)

    @property
    def is_explicit(self) -> bool:
        """Whether every rank is played."""
        return self.ranks.is_explicit or (self.ranks.play == "auto" and bool(self.unlike))

    @property
    def mesh(self) -> Mesh:
        """The ranks of the job on the axes of its plan."""
        return self.plan.mesh(self.cluster.gpus)

    @property
    def gpus(self) -> int:
        """GPUs that the plan takes; the cluster's others stay idle."""
        return self.mesh.ranks

    @property
    def pipelines(self) -> int:
        """Ranks of one pipeline rank, each in a pipeline of its own."""
        return self.gpus // self.mesh.size("pp")

    @property
    def exchanges(self) -> bool:
        """Whether ranks exchange tokens: more than one shares the experts."""
        return self.plan.ep > 1

    @property
    def compute_sms(self) -> int:
        """SMs left to compute kernels beside communication: all where nothing is exchanged."""
        return self.cluster.node.chip.sms - self.held_sms

    @property
    def alone_sms(self) -> int:
        """SMs of compute kernels in chunks that nothing overlaps."""
        return self.compute_sms + round(self.communication.lent_sms * self.held_sms)

    @property
    def held_sms(self) -> int:
        """SMs that communication kernels hold: none where nothing is exchanged."""
        return self.communication.sms if self.exchanges else 0

    def _check(self) -> None:
        """Refuse what no part of the document can see alone."""
        chip = self.cluster.node.chip
        if self.compute_sms < 1:
            raise SpecError(
                f"communication.sms: must leave SMs to compute, at most {chip.sms - 1} "
                f"on {chip.name}, got {self.communication.sms}"
            )
        # Folded chunks keep the loads of the stages that play them first.
        kept = ["ranks.expert_load.correlation"]
        if len(set(self.ranks.expert_load.loads)) == 1:
            kept.append("ranks.expert_load.loads")
        hidden = [name for name in self.unlike if name not in kept]
        if self.ranks.play == "folded" and hidden:
            raise SpecError(
                f"ranks.play: folded ranks are alike, but {hidden[0]} sets them apart; "
                f"use auto or explicit"
            )
        if self.communication.nics == "shared" and self.is_explicit:
            by = f" ({self.unlike[0]} asks for it)" if self.unlike else ""
            raise SpecError(
                f"communication.nics: must be 'separate' where every rank is played{by}, as what "
                f"meets on NICs is played for one pipeline only, got 'shared'"
            )
        for straggler in self.ranks.stragglers:
            if straggler.gpu >= self.cluster.gpus:
                raise SpecError(
                    f"ranks.stragglers: gpu must be from 0 to {self.cluster.gpus - 1}, "
                    f"got {straggler.gpu}"
                )
        self._check_loads()

    def _check_loads(self) -> None:
        """Refuse given expert loads that do not fit model and plan."""
        loads, moe = self.ranks.expert_load.loads, self.model.moe
        if not loads:
            return
        if len(loads[0]) != self.plan.ep:
            raise SpecError(
                f"ranks.expert_load.loads: rows must have plan.ep = {self.plan.ep} loads, "
                f"got {len(loads[0])}"
            )
        layers = self.model.moe_layers + self.model.mtp_layers if moe else 0
        if len(loads) not in (1, layers):
            raise SpecError(
                f"ranks.expert_load.loads: must have one row, or one for each of the {layers} "
                f"layers with experts, got {len(loads)}"
            )


EXPERIMENTS = Catalogue("experiment", Path(__file__).parent / "presets" / "experiments", Experiment)
