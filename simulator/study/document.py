"""What a study asks: an experiment, the axes it is moved along, and what is looked for.

    title = "How much NVLink does the overlap need?"
    experiment = "deepseek-v3-pretrain"                # a preset, a file, or a table with a base
    objectives = ["step_time_s"]

    [[axes]]
    name = "nvlink"
    set = { "cluster.node.chip.nvlink_bytes_per_s" = ["160 GB/s", "400 GB/s", "900 GB/s"] }

Fields of one axis move together, axes are crossed. Instead of a list, a field may have a range:
`{ from = 8, to = 64, step = 8 }`, `{ from = "160 GB/s", to = "900 GB/s", count = 12, log = true }`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hwmodels.errors import SpecError, UnknownPresetError, found_at
from hwmodels.spec import Spec, leaves, read_toml, validate
from hwmodels.units import Seed
from simulator.experiment import Experiment
from simulator.tell.study_table import FigureSpec, Name

STUDIES = Path(__file__).resolve().parents[1] / "presets" / "studies"
"""Studies that are shipped, a file each."""

FOLDER_NAME = r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$"
"""The name of a study is that of its folder too."""

POINTS_MAX = 1_000_000
"""Points of a study: a quarter of an hour on two cores, if hardware alone moves."""


class RangeSpec(Spec):
    """Numbers from one to another, both included, in equal steps or equal ratios.

    Attributes:
        start, stop: numbers, or texts with a unit.
        step: between two; the last may fall short of `stop`.
        count: how many, instead.
        log: equal ratios; with `count` only.
    """

    start: Annotated[float | str, Field(alias="from")]
    stop: Annotated[float | str, Field(alias="to")]
    step: float | str | None = None
    count: Annotated[int, Field(ge=2, le=POINTS_MAX)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _spaced_one_way(self) -> "RangeSpec":
        if (self.step is None) == (self.count is None):
            raise ValueError("a range takes one of step and count")
        if self.log and self.count is None:
            raise ValueError("a range of equal ratios takes a count")
        return self


Values = Annotated[tuple[Any, ...], Field(min_length=1)] | RangeSpec


class AxisSpec(Spec):
    """One direction in which experiments are moved.

    Attributes:
        set: values of each field by its dotted path; several fields move together.
        labels: what its values are called; without them the first field's own.
        title: words for people; the path of the first field if left out.
    """

    name: Name
    title: str = ""
    set: Annotated[dict[str, Values], Field(min_length=1)]
    labels: tuple[str, ...] = ()


class SweepSpec(Spec):
    """How points are looked at.

    Attributes:
        kind: `sweep` plays every point; `search` screens every point by the closed form of its
            schedule and plays those that can still be best in the objectives.
        fidelity: of a sweep: `play`, or `screen` for the closed form alone.
        margin: of a search: by how much screen and play are taken to differ at least.
    """

    kind: Literal["sweep", "search"] = "sweep"
    fidelity: Literal["play", "screen"] = "play"
    margin: Annotated[float, Field(ge=0, le=1)] = 0.05


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("each must be named once only")
    return names


def _distinct(axes: tuple[AxisSpec, ...]) -> tuple[AxisSpec, ...]:
    for kind, names in (
        ("name", [axis.name for axis in axes]),
        ("field", [path for axis in axes for path in axis.set]),
    ):
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"{kind} {twice} must be in one place only")
    return axes


def _flat(cited: Any) -> Any:
    """Return texts by dotted path: TOML reads a dot in a key as a table in a table."""
    return dict(leaves(cited)) if isinstance(cited, Mapping) else cited


Citations = Annotated[
    dict[str, Annotated[str, Field(min_length=1, max_length=1000)]], BeforeValidator(_flat)
]


class StudySpec(Spec):
    """A study.

    Attributes:
        title: the question; about: what it shows, and where it agrees with what is published.
        experiment: a preset's name, a file, or an experiment's own table.
        axes: the last moves fastest.
        where: conditions on points, over axes by name and fields by path; others are left out.
        objectives: numbers of a row, the decisive one first.
        usd_per_gpu_hour: what a GPU costs; without it nothing is told by dollar.
        sources, assumed: where values come from, or why they are guessed, by dotted path: of
            `axes.NAME`, of one field of it as `axes.NAME.PATH`, or of a field of the study. What
            the experiment states anew is cited in its own table.
        usd_source: the same as `sources.usd_per_gpu_hour`.
        seeds: `common`: all points draw the same; `own`: each draws for itself.
    """

    name: Annotated[str, Field(pattern=FOLDER_NAME, max_length=80)] = "study"
    title: Annotated[str, Field(min_length=1, max_length=200)]
    about: str = ""
    experiment: str | dict[str, Any]
    axes: Annotated[tuple[AxisSpec, ...], Field(min_length=1), AfterValidator(_distinct)]
    where: tuple[str, ...] = ()
    objectives: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_once)] = (
        "step_time_s",
    )
    search: SweepSpec = SweepSpec()
    usd_per_gpu_hour: Annotated[float, Field(gt=0, le=1e6)] | None = None
    usd_source: str = ""
    sources: Citations = Field(default_factory=dict)
    assumed: Citations = Field(default_factory=dict)
    seeds: Literal["common", "own"] = "common"
    seed: Seed | None = None
    figures: tuple[FigureSpec, ...] = ()

    def base(self, overrides: dict[str, Any] | None = None) -> Experiment:
        """Return the experiment that axes start from.

        Args:
            overrides: values changed in it, by path.

        Raises:
            InputError: it is none.
        """
        if isinstance(self.experiment, str):
            return Experiment.load(self.experiment, overrides, "--set")
        experiment = Experiment.from_values(dict(self.experiment))
        return experiment.with_overrides(overrides, "--set") if overrides else experiment


def study_names() -> tuple[str, ...]:
    """Return the names of the shipped studies."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.toml")))


def load_study(name_or_path: str | Path) -> StudySpec:
    """Return the study in a TOML file, or the shipped one of that name.

    Raises:
        UnknownPresetError: neither a file nor a shipped study.
        SpecError: the document is malformed.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and not os.path.isfile(path):
        if str(name_or_path) not in study_names():
            raise UnknownPresetError("study", str(name_or_path), study_names())
        path = STUDIES / f"{name_or_path}.toml"
    try:
        values = read_toml(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise SpecError(f"{path}: expected a TOML file, got {found_at(path)}") from None
    except ValueError as error:  # of TOML, of its letters, or of a path that no file can have
        raise SpecError(f"{path}: not TOML: {error}") from None
    return validate(StudySpec, {"name": path.stem} | values, path.stem)
