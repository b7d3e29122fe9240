"""A result, as plain data: the resolved experiment, its metrics, and what makes them credible."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from hwmodels.document import Document
from hwmodels.errors import SpecError, shown
from hwmodels.plain import check_plain
from hwmodels.spec import Spec, validate
from simulator.experiment import Experiment
from simulator.tell.facts import Facts, FactsT
from simulator.tell.facts.pipeline_ranks import PipelineRanks
from simulator.tell.headlines import Headline
from simulator.tell.intervals import Interval
from simulator.tell.kinds import OneOf
from simulator.tell.metrics import Metrics
from simulator.tell.outcome import headlines, numbers
from simulator.tell.provenance import Provenance
from simulator.uncertainty import SampledInput

SCHEMA = Path(__file__).parent / "result.schema.json"
"""JSON schema of a result, as published; a test holds it against the models."""

SCHEMA_VERSION: Literal[2] = 2


class PlayFacts(Spec):
    """How the run was played.

    Attributes:
        mode: `folded`: one pipeline, each distinct part once on one expert group; `explicit`:
            every rank of every pipeline.
        folding_error: step as folded / as explicit - 1; of a folded run where it was asked for.
        ranks: ranks the played ones stand for.
        tasks: tasks played, without the draws.
    """

    mode: Literal["folded", "explicit"]
    folding_error: float | None = None
    engine: str
    ranks: int
    tasks: int


class Timing(Spec):
    """What a clock showed; all else of a result is the same whenever it is run.

    Attributes:
        play_s: wall time of playing the run, without the draws.
    """

    play_s: float


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
        phases: of `breakdown_s`, with words for people.
        breakdown_s: mean over pipeline ranks; the phases sum to the step.
        memory_bytes: terms of the fullest rank, and their `total`.
        uncertainty: what was sampled; None, and the next two empty, where nothing was.
        intervals: spread of the headline numbers, the phases and the total memory over the draws,
            by dotted path.
        samples: the same numbers in each draw.
        facts: what else the run shows, one of a kind.
        timing: what a clock showed; None where it was left out.
    """

    schema_version: Literal[2]
    experiment: dict[str, Any]
    metrics: Annotated[SerializeAsAny[Metrics], BeforeValidator(Metrics.of_kind), OneOf(Metrics)]
    phases: dict[str, str]
    breakdown_s: dict[str, float]
    memory_bytes: dict[str, float]
    uncertainty: Uncertainty | None = None
    intervals: dict[str, Interval] = Field(default_factory=dict)
    samples: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    facts: tuple[
        Annotated[SerializeAsAny[Facts], BeforeValidator(Facts.of_kind), OneOf(Facts)], ...
    ] = ()
    play: PlayFacts
    provenance: Provenance
    timing: Timing | None = None

    @model_validator(mode="after")
    def _its_parts_fit_together(self) -> "Result":
        if self.phases.keys() != self.breakdown_s.keys():
            raise ValueError("phases: must name those of breakdown_s")
        if "total" not in self.memory_bytes:
            raise ValueError("memory_bytes: must have a total")
        kinds = [facts.kind for facts in self.facts]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"facts: must be one of a kind, got {', '.join(kinds)}")
        return self

    @model_validator(mode="after")
    def _every_draw_has_its_samples(self) -> "Result":
        draws = self.uncertainty.draws if self.uncertainty else 0
        for name, values in self.samples.items():
            if len(values) != draws:
                raise ValueError(f"samples: {name} has {len(values)} of {draws} draws")
        sampled = set(self.numbers) if draws else set()
        if not self.samples.keys() == self.intervals.keys() == sampled:
            odd = (self.samples.keys() ^ sampled) | (self.intervals.keys() ^ sampled)
            raise ValueError(
                f"samples and intervals: must be of headlines, phases and total memory where there "
                f"are draws, got too much or too little of {', '.join(sorted(odd))}"
            )
        return self

    @property
    def numbers(self) -> dict[str, float]:
        """What results are compared by and draws are sampled for, by dotted path."""
        return numbers(self.metrics, self.breakdown_s, self.memory_bytes)

    @property
    def headlines(self) -> tuple[Headline, ...]:
        """What these numbers are, in the same order."""
        return headlines(self.metrics, self.phases)

    def fact(self, kind: type[FactsT]) -> FactsT | None:
        """Return the facts of a kind, such as `Ranks`; None where the run has none."""
        return next((facts for facts in self.facts if isinstance(facts, kind)), None)

    def phase_s(self, name: str, rank: int | None = None) -> float:
        """Return the seconds of a phase, mean over pipeline ranks or of one.

        Raises:
            SpecError: one is asked for and the result has none.
        """
        if rank is None:
            return self.breakdown_s[name]
        ranks = self.fact(PipelineRanks)
        if ranks is None:
            raise SpecError("facts: must have pipeline_ranks to tell of one, got none")
        return ranks.breakdown_s[name][rank]

    def without_timing(self) -> "Result":
        """Return the result without what a clock showed: two of one experiment are then the same,
        to the last byte of their JSON.
        """
        return self.model_copy(update={"timing": None})

    def resolved(self) -> Experiment:
        """Return the experiment, with the sources and distributions of its inputs."""
        return Experiment.from_document(Document(self.experiment, dict(self.provenance.sources)))

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
        _check_version(values, name)
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


def _check_version(values: Any, name: str) -> None:
    """Refuse a result of another schema; one that says none is refused as what it lacks."""
    if not isinstance(values, dict):
        return
    origin = values.get("provenance")
    origin = origin if isinstance(origin, dict) else {}
    version = values.get("schema_version", origin.get("schema_version"))
    if version not in (None, SCHEMA_VERSION):
        raise SpecError(
            f"{name}: schema_version: must be {SCHEMA_VERSION}, got {shown(version)}; simulate its "
            f"experiment again with `moesim run`, or read it with the moesim that wrote it "
            f"({shown(origin.get('version'))}, of schema {shown(version)})"
        )
