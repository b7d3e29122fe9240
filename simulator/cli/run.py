"""Commands about simulated steps: run, compare, plot, reproduce, schema."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwmodels.errors import InfeasibleError, InputError
from simulator.cli.output import (
    cannot_write,
    check_format,
    console,
    echo_json,
    json_option,
    track_draws,
    warn_of,
)

if TYPE_CHECKING:
    from simulator.driver.run import Simulated
    from simulator.experiment import Experiment
    from simulator.tell.compare import Comparison
    from simulator.tell.result import Result
    from simulator.tell.trace import Detail


@click.command()
@click.argument("experiment")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one value of the experiment, through presets if need be; repeatable.",
)
@json_option
@click.option("--schedule", metavar="NAME|all", help="Pipeline schedule; 'all' compares them.")
@click.option("--ranks", "play", metavar="auto|folded|explicit", help="Which ranks are played.")
@click.option("--check-folding", is_flag=True, help="Play every rank too and tell the difference.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write result.json, trace.json and figures here."
)
@click.option(
    "--trace",
    "detail",
    metavar="parts|segments|kernels",
    help="Detail of trace.json; parts without it.",
)
@click.option("--trace-rank", "ranks", type=int, multiple=True, help="Pipeline ranks to trace.")
@click.option("--trace-pipeline", "pipeline", type=int, help="Of all ranks: pipeline to trace; 0.")
def run(
    experiment: str,
    overrides: tuple[str, ...],
    as_json: bool,
    schedule: str | None,
    play: str | None,
    check_folding: bool,
    out: Path | None,
    detail: str | None,
    ranks: tuple[int, ...],
    pipeline: int | None,
) -> None:
    """Simulate EXPERIMENT, a preset or a TOML file.

    KEY descends through presets, VALUE is TOML or a bare word; quantities take units.

    \b
    moesim run deepseek-v3-pretrain --out out/base
    moesim run deepseek-v3-pretrain --set cluster.node.chip=h200
    moesim run deepseek-v3-pretrain --set cluster.node.nic.link_bytes_per_s="200 Gb/s"
    moesim run deepseek-v3-pretrain --set profile=none     (the datasheet's roofline)
    moesim run deepseek-v3-pretrain --set uncertainty.draws=256   (how sure it is)
    """
    from simulator.driver.run import simulate
    from simulator.tell.trace import check_detail

    trace = check_detail(detail or "parts")
    chosen = _load(experiment, overrides)
    if play is not None:
        chosen = chosen.with_overrides({"ranks.play": play}, "--ranks")
    warn_of(chosen.notes)
    if out is None and (detail or ranks or pipeline is not None):
        raise InputError("--trace, --trace-rank, --trace-pipeline: need --out FOLDER, got none")
    if schedule == "all":
        if out is not None or check_folding:
            option = "--out" if out is not None else "--check-folding"
            raise InputError(f"{option}: goes with one schedule, got --schedule all")
        _run_all_schedules(chosen, as_json)
        return
    if schedule is not None:
        chosen = chosen.with_overrides({"plan.schedule": schedule}, "--schedule")
    if check_folding and chosen.is_explicit:
        raise InputError("--check-folding: goes with folded ranks, got a run that plays every rank")
    if out:
        prepare_folder(out, ranks, pipeline or 0, chosen)
    kept = tuple({0, pipeline or 0}) if out else ()
    simulated = simulate(chosen, track_draws, check_folding, pipelines=kept)
    files = write_result(simulated, out, trace, ranks, pipeline or 0) if out else []
    result = simulated.result
    if as_json:
        click.echo(result.to_json())
        return
    from simulator.tell.summary import show_result

    show_result(console(), result)
    for file in files:
        click.echo(f"wrote {file}", err=True)


def _load(name: str, overrides: Iterable[str]) -> "Experiment":
    from simulator.cli.overrides import parse_override
    from simulator.experiment import Experiment

    values = dict(parse_override(text) for text in overrides)
    return Experiment.load(name, values, "--set")


def _run_all_schedules(experiment: "Experiment", as_json: bool) -> None:
    """Run every schedule on the same experiment; what cannot run is a line with its reason."""
    from simulator.driver.run import run as simulate
    from simulator.tell.schedules import show_schedules
    from workloads.schedules import SCHEDULES

    told = {str(note) for note in experiment.notes}
    outcomes: dict[str, Result | InfeasibleError] = {}
    notes: dict[str, list[str]] = {}
    for name in SCHEDULES:
        try:
            chosen = experiment.with_overrides({"plan.schedule": name}, "--schedule")
            outcomes[name] = simulate(chosen, track=track_draws)
            notes[name] = [note for note in map(str, chosen.notes) if note not in told]
        except InfeasibleError as error:
            outcomes[name] = error
    if all(isinstance(outcome, InfeasibleError) for outcome in outcomes.values()):
        raise InfeasibleError(f"no schedule can run this: {outcomes[name]}")
    if as_json:
        echo_json(
            {
                name: {"infeasible": str(outcome)}
                if isinstance(outcome, InfeasibleError)
                else outcome.model_dump(mode="json")
                for name, outcome in outcomes.items()
            }
        )
        return
    show_schedules(console(), outcomes, notes)


def prepare_folder(
    out: Path, ranks: tuple[int, ...], pipeline: int, experiment: "Experiment"
) -> None:
    """Refuse what would only fail after the run: a folder that cannot be, a rank there is not."""
    pp = experiment.plan.pp
    pipelines = experiment.pipelines if experiment.is_explicit else 1
    if not 0 <= pipeline < pipelines:
        one = "" if experiment.is_explicit else " where ranks are folded"
        raise InputError(
            f"--trace-pipeline: must be from 0 to {pipelines - 1}{one}, got {pipeline}"
        )
    for rank in ranks:
        if not 0 <= rank < pp:
            raise InputError(f"--trace-rank: must be from 0 to {pp - 1}, got {rank}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out, error) from None


def write_result(
    simulated: "Simulated", out: Path, detail: "Detail", ranks: tuple[int, ...], pipeline: int
) -> list[Path]:
    """Write everything a run gives to a folder and return the files."""
    from simulator.tell.figures import draw_all
    from simulator.tell.trace import StepTrace

    try:
        files = [out / "result.json", out / "trace.json"]
        files[0].write_text(simulated.result.to_json() + "\n", encoding="utf-8")
        trace = StepTrace(simulated.played, pipeline)
        trace.to_chrome_trace(files[1], detail, ranks or None)
        return files + draw_all(simulated.played, simulated.result, out)
    except OSError as error:
        raise cannot_write(out, error) from None


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--figure", type=click.Path(path_type=Path), help="Draw the steps from the one to the other."
)
@json_option
def compare(before: Path, after: Path, figure: Path | None, as_json: bool) -> None:
    """Explain the difference of two results of one kind, phase by phase.

    BEFORE and AFTER are result.json files or folders that `run --out` wrote.
    """
    from dataclasses import asdict

    from simulator.tell.compare import compare as explain
    from simulator.tell.result import Result
    from simulator.tell.summary import show_comparison

    if figure is not None:
        check_format(figure)
    comparison = explain(Result.load(before), Result.load(after))
    if figure is not None:
        _draw_comparison(comparison, figure)
    if as_json:
        echo_json(asdict(comparison))
    else:
        show_comparison(console(), comparison)


def _draw_comparison(comparison: "Comparison", file: Path) -> None:
    from simulator.tell.waterfall import draw_waterfall

    try:
        draw_waterfall(comparison, file)
    except OSError as error:
        raise cannot_write(file, error, "--figure") from None
    click.echo(f"wrote {file}", err=True)


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
def plot(result: Path) -> None:
    """Draw the figures of a result, or of a study, again.

    RESULT is a result.json file or a folder that `run --out` wrote: its experiment is played again
    and drawn beside it. Of a folder that `study` wrote, the table is drawn into its `figures`.
    """
    from simulator.tell.study_table import DOCUMENT

    draw = _draw_study if (result / DOCUMENT).exists() else _draw_result
    for file in draw(result):
        click.echo(f"wrote {file}", err=True)


def _draw_study(folder: Path) -> list[Path]:
    """Draw the table of a study into its folder and return the files."""
    from simulator.tell.study_figures import draw_study
    from simulator.tell.study_table import StudyTable

    figures = folder / "figures"
    try:
        return draw_study(StudyTable.load(folder), figures)
    except OSError as error:
        raise cannot_write(figures, error) from None


def _draw_result(result: Path) -> list[Path]:
    """Play the experiment of a result again, draw it beside the result and return the files."""
    from simulator.driver.step import play
    from simulator.tell.figures import draw_all
    from simulator.tell.headlines import shown
    from simulator.tell.metrics import metrics_of
    from simulator.tell.result import Result

    folder = result if result.is_dir() else result.parent
    read = Result.load(result)
    played = play(read.resolved())
    decisive = read.metrics.headline[0]
    recorded, now = (each.numbers[decisive.name] for each in (read.metrics, metrics_of(played)))
    if abs(now - recorded) > 1e-9 * abs(now):
        was, gives = (shown(value, decisive.unit, ".6g") for value in (recorded, now))
        raise InputError(
            f"{result}: its {decisive.title} of {was} is not what its experiment gives here, "
            f"{gives}; it was edited, or written by another version"
        )
    try:
        return draw_all(played, read, folder)
    except OSError as error:
        raise cannot_write(folder, error) from None


@click.command()
@click.argument("names", nargs=-1)
@json_option
def reproduce(names: tuple[str, ...], as_json: bool) -> None:
    """Print published figures beside ours, with the error of each.

    NAMES are ids or their beginnings, such as isca25.table4; all figures without names.
    """
    from simulator.published.reproduce import reproduce as compute
    from simulator.published.show import show_published

    rows = compute(names, track_draws)
    if as_json:
        echo_json({"rows": [row.as_dict() for row in rows]})
    else:
        show_published(console(), rows)


@click.command()
def schema() -> None:
    """Print the JSON schema of result.json."""
    from simulator.tell.result import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)
