"""A result: the resolved experiment, its metrics, and everything needed to trust them."""

import hashlib
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from hwmodels.document import Document, Source
from hwmodels.errors import SpecError
from hwmodels.plain import check_plain
from hwmodels.spec import Spec, validate
from simulator.experiment import Experiment
from simulator.tell.draws import Track, kept, play_draws, samples
from simulator.tell.intervals import Interval, intervals
from simulator.tell.metrics import Metrics, metrics, shares
from simulator.tell.nic_facts import NicFacts, nic_facts
from simulator.tell.rank_facts import RankFacts, rank_facts
from simulator.tell.trace import StepTrace
from simulator.training import TrainingRun, train
from simulator.uncertainty import Draws, SampledInput, sample

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parent / "result.schema.json"
"""JSON schema of a result, as published; a test holds it against the models."""


class PlayFacts(Spec):
    """How the run was played.

    Attributes:
        mode: `folded`: one pipeline, each distinct chunk once on one expert group; `explicit`:
            every rank of every pipeline.
        folding_error: step as folded / as explicit - 1; of a folded run where it was asked for.
        ranks: ranks the played ones stand for.
        tasks: tasks played.
        wall_s: time that took; `tasks` and this are without the draws.
    """

    mode: Literal["folded", "explicit"]
    folding_error: float | None = None
    engine: str
    ranks: int
    tasks: int
    wall_s: float


class Provenance(Spec):
    """Where the numbers come from.

    Attributes:
        profile_sha256: hash of the profile's values; None for the roofline.
        time_share_by_basis: share of compute time by what it was priced from.
        communication_basis: what exchanges, messages and gradient collectives were priced from.
        sources: by dotted path of the resolved experiment; `assumed` marks guesses.
        folding: what was played once for many.
        notes: what else to know, such as values far from every known part.
        expert_routing: whose rule says where tokens may go, the model's own or
            `communication.routed_nodes_max`, and what it comes to; None without experts.
    """

    version: str
    schema_version: Literal[1]
    seed: int
    profile: str | None
    profile_sha256: str | None
    time_share_by_basis: dict[str, float]
    communication_basis: str
    folding: str
    expert_routing: str | None = None
    sources: dict[str, Source]
    notes: tuple[str, ...] = ()


class Uncertainty(Spec):
    """What was sampled: how often, from which seed, and the inputs with their distributions."""

    draws: Annotated[int, Field(ge=1)]
    seed: int
    inputs: tuple[SampledInput, ...]


class Result(Spec):
    """What `run` returns; survives a JSON round trip.

    Attributes:
        experiment: the resolved document, presets expanded.
        metrics: of the run at the inputs' own values.
        uncertainty: what was sampled; None, and the next two empty, where nothing was.
        intervals: spread of each number of `metrics`, by dotted path, over the draws.
        samples: headline numbers, phases and total memory of each draw, by dotted path.
        ranks: what every rank did, where all were played.
        nics: what met on NICs, where they are shared.
    """

    experiment: dict[str, Any]
    metrics: Metrics
    uncertainty: Uncertainty | None = None
    intervals: dict[str, Interval] = Field(default_factory=dict)
    samples: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    ranks: RankFacts | None = None
    nics: NicFacts | None = None
    play: PlayFacts
    provenance: Provenance

    _run: TrainingRun | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _every_draw_has_its_samples(self) -> "Result":
        draws = self.uncertainty.draws if self.uncertainty else 0
        for name, values in self.samples.items():
            if len(values) != draws:
                raise ValueError(f"samples: {name} has {len(values)} of {draws} draws")
        if draws and not {"step_time_s"} <= set(self.samples) <= set(self.intervals):
            raise ValueError("samples: must hold step_time_s, and nothing without an interval")
        return self

    def resolved(self) -> Experiment:
        """Return the experiment, with the sources and distributions of its inputs."""
        return Experiment.from_document(Document(self.experiment, dict(self.provenance.sources)))

    def training_run(self) -> TrainingRun:
        """Return the run behind the numbers, played again if this result was read from a file."""
        if self._run is None:
            self._run = train(self.resolved())
        return self._run

    def timeline(self, pipeline: int = 0) -> StepTrace:
        """Return the timeline of the step, which can write itself as a trace.

        Args:
            pipeline: which one, where all ranks were played.

        Raises:
            InputError: there is no such pipeline.
        """
        return StepTrace(self.training_run(), pipeline)

    def to_json(self) -> str:
        """Return the result as JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1)

    @classmethod
    def from_json(cls, text: str, name: str = "result") -> "Result":
        """Read a result.

        Raises:
            SpecError: the text is no result.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # JSONDecodeError is a ValueError
            raise SpecError(f"{name}: not JSON: {str(error).partition(';')[0]}") from None
        check_plain(values, name)
        return validate(cls, values, name)

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read `result.json`, or the one in a folder.

        Raises:
            SpecError: there is none, or it is malformed.
        """
        file = path / "result.json" if path.is_dir() else path
        expected = "expected a result.json, or a folder that `moesim run --out` wrote"
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise SpecError(f"{file}: {expected}, got bytes that are not UTF-8") from None
        except OSError:
            got = "a file that cannot be read" if file.exists() else "nothing there"
            raise SpecError(f"{file}: {expected}, got {got}") from None
        return cls.from_json(text, str(file))


def run(experiment: Experiment, track: Track = iter, check_folding: bool = False) -> Result:
    """Simulate an experiment, and every draw of it if it asks for draws.

    Args:
        check_folding: play every rank as well, to tell how far folding is from that.
        track: passes on the numbers of the draws, and may show progress.

    Raises:
        InputError: the experiment cannot run; the message says why.
    """
    draws = sample(experiment) if experiment.uncertainty.draws else None
    started = time.perf_counter()
    training = train(experiment)
    told = metrics(training)
    wall_s = time.perf_counter() - started
    result = Result(
        experiment=experiment.model_dump(mode="json"),
        metrics=told,
        play=PlayFacts(
            mode="explicit" if training.explicit else "folded",
            folding_error=_folding_error(training, check_folding),
            engine=experiment.ranks.engine,
            ranks=experiment.gpus,
            tasks=training.tasks,
            wall_s=wall_s,
        ),
        provenance=_provenance(training),
        ranks=_rank_facts(training),
        nics=_nic_facts(training),
        **(_spread(draws, track) if draws else {}),
    )
    result._run = training
    return result


def _folding_error(training: TrainingRun, wanted: bool) -> float | None:
    """Return how far folded play of a step is from playing every rank of it, if wanted.

    Both with a NIC for each kind of traffic: shared ones are played for one pipeline only. Where
    all ranks were played anyway, `RankFacts.folded_step_s` is beside it.
    """
    if training.explicit is not None or not wanted:
        return None
    every_rank = {"ranks.play": "explicit", "communication.nics": "separate"}
    unfolded = training.experiment.with_overrides(every_rank, "check of folding")
    explicit = train(unfolded).explicit
    assert explicit is not None, "asked for by the override"
    return training.folded_timeline.makespan_s / explicit.step_s - 1


def _rank_facts(training: TrainingRun) -> RankFacts | None:
    if training.explicit is None:
        return None
    return rank_facts(training.explicit, training.folded_timeline.makespan_s)


def _nic_facts(training: TrainingRun) -> NicFacts | None:
    if training.shared is None:
        return None
    return nic_facts(training.shared, training.folded_timeline.makespan_s)


def _spread(draws: Draws, track: Track) -> dict[str, Any]:
    """Play every draw and return the fields of a result that tell of them."""
    sampled = samples(play_draws(draws, track))
    asked = draws.experiment.uncertainty
    return {
        "uncertainty": Uncertainty(draws=len(draws), seed=asked.seed, inputs=draws.inputs),
        "intervals": intervals(sampled, draws.paths, draws.deviations),
        "samples": kept(sampled),
    }


def _provenance(training: TrainingRun) -> Provenance:
    experiment = training.experiment
    profile = experiment.profile
    return Provenance(
        version=_version(),
        schema_version=SCHEMA_VERSION,
        seed=experiment.ranks.seed,
        profile=profile.name if profile else None,
        profile_sha256=_sha256(profile.model_dump_json()) if profile else None,
        time_share_by_basis=shares(training, lambda each: each.basis),
        communication_basis=_communication_basis(training),
        folding=_folding(training),
        expert_routing=_expert_routing(training),
        sources=experiment.sources,
        notes=tuple(map(str, experiment.far_values)),
    )


def _communication_basis(training: TrainingRun) -> str:
    basis = training.pricer.exchanges.rates.basis
    if not training.experiment.exchanges:
        basis = f"{basis}; no expert exchange, so that compute has all SMs"
    return basis if training.fabric is None else f"{basis}; {training.fabric}"


def _expert_routing(training: TrainingRun) -> str | None:
    """Return in words whose rule routes tokens, and to how many nodes and GPUs.

    Of groups that lie over nodes in several ways, those whose tokens go to the most.
    """
    experiment, layouts = training.experiment, training.workload.routing
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


def _folding(training: TrainingRun) -> str:
    """Return in words what was played once for many."""
    experiment, chunks = training.experiment, training.chunks
    ep, pp = experiment.plan.ep, experiment.plan.pp
    pipelines = experiment.gpus // pp
    draws = max(chunk.draws for chunk in chunks.values())
    idle = experiment.cluster.gpus - experiment.gpus
    spare = f"; {idle} of {experiment.cluster.gpus} GPUs idle" if idle else ""
    if training.explicit is not None:
        return (
            f"every rank played: {pipelines} pipelines of {pp}, {ep} ranks in lock-step;"
            f" what slows kernels and exchanges beside each other from {len(chunks)} folded chunks"
            f"{spare}"
        )
    shared = (
        "; its segments played as on the slowest rank of each chunk, to meet on shared NICs"
        if training.shared is not None
        else ""
    )
    return (
        f"{pipelines} pipelines played as one of {pp} ranks; {len(chunks)} distinct chunks played "
        f"on {ep} ranks in lock-step, with {draws} draws of the expert load each{shared}{spare}"
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version() -> str:
    try:
        return version("moesim")
    except PackageNotFoundError:
        return "uninstalled"
