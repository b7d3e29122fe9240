"""A result, as plain data: the resolved experiment, its metrics, and what makes them credible."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hwmodels.document import Document
from hwmodels.errors import SpecError
from hwmodels.plain import check_plain
from hwmodels.spec import Spec, validate
from simulator.experiment import Experiment
from simulator.tell.facts.nics import NicFacts
from simulator.tell.facts.ranks import RankFacts
from simulator.tell.intervals import Interval
from simulator.tell.metrics import Metrics
from simulator.tell.provenance import Provenance
from simulator.uncertainty import SampledInput

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
