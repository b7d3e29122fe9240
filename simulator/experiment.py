"""The one input document: what is trained, on what, split how.

Presets fill what a document does not say; overrides change single values, through presets if need
be (`cluster.node.chip`). Everything that cannot be run is refused here or by the scenario, before
anything is priced.
"""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PrivateAttr

from hwmodels.chip import FP32_BITS, PROMOTED, PROMOTED_BITS
from hwmodels.cluster import ClusterSpec
from hwmodels.document import Document, Source
from hwmodels.errors import InfeasibleError, SpecError, suggestion
from hwmodels.far_values import FarValue, far_values
from hwmodels.fields import with_numbers
from hwmodels.formats import NumberFormat
from hwmodels.profile import KernelProfile
from hwmodels.spec import (
    Catalogue,
    Spec,
    build,
    expand,
    override,
    read_document,
)
from hwmodels.units import Seed
from simulator.communication import WIRE_FORMATS, CommunicationSpec
from simulator.ranks import RanksSpec
from workloads.batch import BatchSpec
from workloads.mesh import Mesh
from workloads.model import ModelSpec
from workloads.parallel import ParallelPlan
from workloads.recipes import RECIPES, Abilities, Recipe, recipe
from workloads.units import layout_text


def _known_recipe(name: str) -> str:
    if name not in RECIPES:
        raise ValueError(f"{name!r} is unknown{suggestion(name, RECIPES)}")
    return name


class PrecisionSpec(Spec):
    """Number formats of a training step.

    Attributes:
        recipe: `fp8-blockwise` is DeepSeek-V3's: FP8 GEMMs with 1x128 and 128x128 scales, BF16
            attention, router and head, FP32 gradients and master weights (arXiv 2412.19437 §3.3).
            `bf16` is BF16 throughout and recomputes nothing. See `workloads.recipes`.
    """

    recipe: Annotated[str, AfterValidator(_known_recipe)] = "fp8-blockwise"


ENGINE_WORKS = "none are held, cluster.node.chip.exchange_engine moves tokens in their place"
"""Said of SMs that exchanges were given and do not need."""

GAVE_WAY = "the preset's gives way to an even split"
"""Begins the source of a layout that came with a preset and did not hold the rest."""


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

    _document: Document = PrivateAttr(default_factory=Document)  # as asked
    _gave_way: str = PrivateAttr(default="")  # why the layout asked for is not the plan's
    _parts: dict[str, Any] = PrivateAttr(default_factory=dict)  # of the document, validated

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        overrides: Mapping[str, Any] | None = None,
        origin: str = "override",
    ) -> "Experiment":
        """Return the experiment in a TOML file, or the preset of that name.

        Args:
            overrides: values changed before anything is checked, as of `with_overrides`.

        Raises:
            UnknownPresetError: neither a file nor a preset.
            SpecError: the document is malformed.
        """
        path = Path(name_or_path)
        # Unlike those of `Path` these hold for names that no file can have.
        if os.path.isdir(path) or path.suffix == ".json":
            raise SpecError(f"{path}: expected the name of a preset or a TOML file")
        if path.suffix == ".toml" or os.path.isfile(path):
            document = read_document(cls, path)
        else:
            document = EXPERIMENTS.document(str(name_or_path))
        for changed, value in (overrides or {}).items():
            override(document, cls, changed, value, origin)
        return cls.from_document(document)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> "Experiment":
        """Return the experiment a plain mapping describes, preset names allowed."""
        return cls.from_document(expand(cls, values))

    @classmethod
    def from_document(
        cls, document: Document, known: Mapping[str, Any] | None = None
    ) -> "Experiment":
        """Validate a document and keep it, with its sources.

        Args:
            known: parts of it that were validated before.
        """
        name = document.values.get("name")
        parts = replace(document, values=document.values | dict(known or {}))
        experiment = build(cls, parts, name if isinstance(name, str) else "experiment")
        if why := experiment._why_layout_gives_way(document):
            even = replace(parts, given=set(), stated=set())
            even.values = parts.values | {"plan": deepcopy(document.values["plan"])}
            override(even, cls, "plan.layout", "none", why)
            experiment = build(cls, even, experiment.name)
        experiment._document, experiment._gave_way = document, why
        # A plan may have given way to what will be changed next.
        still = document.values.keys() - {"plan"}
        experiment._parts = {key: getattr(experiment, key) for key in still}
        experiment._check()
        return experiment

    def with_overrides(self, values: dict[str, Any], origin: str = "override") -> "Experiment":
        """Return a copy with single values changed: `{"cluster.fabric.planes": 4}`.

        Raises:
            SpecError: a path leads nowhere or a value does not fit.
        """
        own, moved = self._document, {path.partition(".")[0] for path in values}
        parts = {key: deepcopy(of) if key in moved else of for key, of in own.values.items()}
        document = replace(own, values=parts, sources=dict(own.sources))
        document.given, document.stated = set(own.given), set(own.stated)
        for path, value in values.items():
            override(document, Experiment, path, value, origin)
        still = {key: part for key, part in self._parts.items() if key not in moved}
        return Experiment.from_document(document, still)

    def with_numbers(self, numbers: Mapping[str, float]) -> "Experiment":
        """Return a copy with the number at each path replaced and every source left as it is.

        The same experiment as `with_overrides` gives, an order of magnitude faster.

        Raises:
            SpecError: a number is out of bounds, or breaks a rule between fields.
        """
        experiment = with_numbers(self, numbers)
        experiment._document, experiment._gave_way = self._document, self._gave_way
        experiment._parts = self._parts
        experiment._check()
        return experiment

    @property
    def sources(self) -> dict[str, Source]:
        """Source of every value that has one, by dotted path."""
        sources = self._document.sources
        layout = {"plan.layout": Source(text=self._gave_way)} if self._gave_way else {}
        return sources | layout

    @property
    def far_values(self) -> tuple[FarValue, ...]:
        """Values that no preset states, and that are far from those of every known part."""
        return far_values(self, self._document)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else to know, in words: a layout that gave way, SMs that nothing holds, an ability
        that spares nothing, values far from every known one.
        """
        source = self.sources.get("plan.layout")
        gave_way = source is not None and source.text.startswith(GAVE_WAY)
        layout = [f"plan.layout: {source.text}"] if gave_way and source is not None else []
        free = self.exchanges and self.communication.sms > self.held_sms
        engine = [f"communication.sms: {ENGINE_WORKS}"] if free else []
        return (*layout, *engine, *self._fp8_unit_in_vain, *map(str, self.far_values))

    @property
    def _fp8_unit_in_vain(self) -> tuple[str, ...]:
        """Why tensor cores that scale blocks, or sum in more bits, are no faster for it."""
        unit = self.cluster.node.chip.fp8_unit
        if unit is None or self.recipe.format.family != "fp8" or unit.promotions < 1:
            return ()
        bits, why = unit.accumulation_mantissa_bits, ""
        if unit.block_scaling:
            why = (
                f"block_scaling spares nothing with accumulators of {bits} bits, whose sums are "
                f"promoted every {PROMOTED} elements all the same; {FP32_BITS} bits need no "
                f"promotion"
            )
        elif bits > PROMOTED_BITS:
            why = (
                f"accumulators of {bits} bits spare nothing where CUDA cores apply the scales of "
                f"blocks, every {PROMOTED} elements; block_scaling = true lets them"
            )
        return (f"cluster.node.chip.fp8_unit: {why}",) if why else ()

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
    def recipe(self) -> Recipe:
        """The recipe that the document names, on the FP8 unit of the chip."""
        unit = self.cluster.node.chip.fp8_unit
        named = recipe(self.precision.recipe)
        if unit is None:
            return named
        return named.able(Abilities(unit.casts_in_flight, unit.transposed_reads))

    @property
    def dispatch_format(self) -> NumberFormat:
        """Format of dispatched tokens on the wire."""
        return WIRE_FORMATS[self.communication.dispatch or self.recipe.dispatches[0]]

    @property
    def codec_overhead(self) -> float:
        """By which coding lengthens the time in which combines move, as a share of it."""
        by_sms = (
            self.communication.combine_format.is_logarithmic and not self.cluster.node.nic.codec
        )
        return self.communication.codec_overhead if by_sms else 0.0

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
        """SMs of compute kernels in parts that nothing overlaps."""
        return self.compute_sms + round(self.communication.lent_sms * self.held_sms)

    @property
    def held_sms(self) -> int:
        """SMs that communication kernels hold: none where nothing is exchanged, or not by SMs."""
        by_sms = self.exchanges and not self.cluster.node.chip.exchange_engine
        return self.communication.sms if by_sms else 0

    def _why_layout_gives_way(self, document: Document) -> str:
        """Return why a layout that came with a preset does not hold what was put in its place, and
        what stands in for it; empty where it holds, or is one's own and refused where it is read.
        """
        changed = any(map(document.is_stated, ("model", "plan.pp", "plan.vpp", "plan.schedule")))
        if self.plan.layout is None or document.is_stated("plan.layout") or not changed:
            return ""
        try:
            self.plan.pipeline_schedule.stages(self.plan.pp, self.plan.vpp)
        except InfeasibleError:
            return ""  # refused where the plan is checked: another schedule may still replace it
        try:
            self.plan.stages(self.model)
        except InfeasibleError as error:
            even = self.plan.model_copy(update={"layout": None}).stages(self.model)
            return f"{GAVE_WAY}, {layout_text(even)}: {str(error).removeprefix('plan.layout: ')}"
        return ""

    def _check(self) -> None:
        """Refuse what no part of the document can see alone."""
        chip, dispatch = self.cluster.node.chip, self.communication.dispatch
        if dispatch and dispatch not in self.recipe.dispatches:
            raise SpecError(
                f"communication.dispatch: recipe {self.recipe.name} sends tokens in "
                f"{' or '.join(self.recipe.dispatches)}, got {dispatch!r}"
            )
        family = self.recipe.format.family
        if family not in chip.tensor:
            fit = [each.name for each in RECIPES.values() if each.format.family in chip.tensor]
            raise SpecError(
                f"precision.recipe: {self.recipe.name} multiplies in {family}, of which "
                f"{chip.name} has no tensor rate; use {' or '.join(fit)}"
            )
        if self.compute_sms < 1:
            raise SpecError(
                f"communication.sms: must leave SMs to compute, at most {chip.sms - 1} "
                f"on {chip.name}, got {self.communication.sms}"
            )
        if self.exchanges and not (self.communication.sms or chip.exchange_engine):
            raise SpecError(
                "communication.sms: at least 1 without cluster.node.chip.exchange_engine, got 0"
            )
        if not self.cluster.node.scale_up.switched:
            raise InfeasibleError(
                f"cluster.node.scale_up.switched: must be true, as links of single pairs of GPUs "
                f"are not routed, got false for node {self.cluster.node.name}"
            )
        if self.exchanges:
            self.communication.check_codec(self.cluster)
        # Folded parts keep the loads of the stages that play them first.
        kept = ["ranks.expert_load.correlation"]
        given = {name: getattr(self.ranks.expert_load, name) for name in ("loads", "counts")}
        kept += [f"ranks.expert_load.{name}" for name, rows in given.items() if len(set(rows)) == 1]
        hidden = [name for name in self.unlike if name not in kept]
        if self.ranks.play == "folded" and hidden:
            raise SpecError(
                f"ranks.play: folded ranks are alike, but {hidden[0]} sets them apart; "
                f"use auto or explicit"
            )
        for straggler in self.ranks.stragglers:
            if straggler.gpu >= self.cluster.gpus:
                raise SpecError(
                    f"ranks.stragglers: gpu must be from 0 to {self.cluster.gpus - 1}, "
                    f"got {straggler.gpu}"
                )
        load, placement = self.ranks.expert_load, self.ranks.expert_placement
        load.check(self.model, self.plan.ep)
        placement.check(load, self.model, self.plan)
        self.communication.check_experts(load, placement)


EXPERIMENTS = Catalogue("experiment", Path(__file__).parent / "presets" / "experiments", Experiment)
