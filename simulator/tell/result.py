"""A result: the resolved experiment, its metrics, and everything needed to trust them."""

import hashlib
import json
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from hwmodels.errors import SpecError
from hwmodels.spec import Source, Spec, validate
from simulator.experiment import Experiment
from simulator.tell.metrics import Metrics, metrics, shares
from simulator.tell.trace import StepTrace
from simulator.training import TrainingRun, train

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).parent / "result.schema.json"
"""JSON schema of a result, as published; a test holds it against the models."""


class PlayFacts(Spec):
    """How the run was played.

    Attributes:
        mode: `folded`: one pipeline, each distinct chunk once on one expert group.
        ranks: ranks the played ones stand for.
        tasks: tasks played.
    """

    mode: Literal["folded"]
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
    """

    version: str
    schema_version: Literal[1]
    seed: int
    profile: str | None
    profile_sha256: str | None
    time_share_by_basis: dict[str, float]
    communication_basis: str
    folding: str
    sources: dict[str, Source]


class Result(Spec):
    """What `run` returns; survives a JSON round trip.

    Attributes:
        experiment: the resolved document, presets expanded.
        intervals: P10-P90 of metrics, where inputs were sampled (empty when not).
    """

    experiment: dict[str, Any]
    metrics: Metrics
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    play: PlayFacts
    provenance: Provenance

    _run: TrainingRun | None = PrivateAttr(default=None)

    def training_run(self) -> TrainingRun:
        """Return the run behind the numbers, played again if this result was read from a file."""
        if self._run is None:
            self._run = train(Experiment.from_values(self.experiment))
        return self._run

    def timeline(self) -> StepTrace:
        """Return the timeline of the step, which can write itself as a trace."""
        return StepTrace(self.training_run())

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
        except (json.JSONDecodeError, RecursionError) as error:
            raise SpecError(f"{name}: not JSON: {error}") from None
        return validate(cls, values, name)

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read `result.json`, or the one in a folder.

        Raises:
            SpecError: there is none, or it is malformed.
        """
        file = path / "result.json" if path.is_dir() else path
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"{file}: {error}") from None
        return cls.from_json(text, str(file))


def run(experiment: Experiment) -> Result:
    """Simulate an experiment.

    Raises:
        InputError: the experiment cannot run; the message says why.
    """
    started = time.perf_counter()
    training = train(experiment)
    result = Result(
        experiment=experiment.model_dump(mode="json"),
        metrics=metrics(training),
        play=PlayFacts(
            mode="folded",
            engine=experiment.ranks.engine,
            ranks=experiment.cluster.gpus,
            tasks=training.tasks,
            wall_s=time.perf_counter() - started,
        ),
        provenance=_provenance(training),
    )
    result._run = training
    return result


def _provenance(training: TrainingRun) -> Provenance:
    experiment = training.experiment
    profile = experiment.profile
    ep, pp = experiment.plan.ep, experiment.plan.pp
    return Provenance(
        version=_version(),
        schema_version=SCHEMA_VERSION,
        seed=experiment.ranks.seed,
        profile=profile.name if profile else None,
        profile_sha256=_sha256(profile.model_dump_json()) if profile else None,
        time_share_by_basis=shares(training, lambda each: each.basis),
        communication_basis=training.pricer.exchanges.rates.basis,
        folding=(
            f"{experiment.cluster.gpus // pp} pipelines played as one of {pp} ranks; "
            f"{len(training.chunks)} distinct chunks played on {ep} ranks in lock-step, "
            f"with {max(c.draws for c in training.chunks.values())} draws of the expert load each"
        ),
        sources=experiment.sources,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _version() -> str:
    try:
        return version("moesim")
    except PackageNotFoundError:
        return "uninstalled"
