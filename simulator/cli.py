"""The command line: parse, call the rooms, print. Heavy imports wait until a command runs.

Data goes to stdout, messages to stderr. Exit 0 done; 2 the input is wrong; 3 the machine lacks
something; 1 our bug, with its traceback.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwmodels.errors import InfeasibleError, InputError, MachineError, MoesimError

if TYPE_CHECKING:
    from rich.console import Console

    from hwmodels.spec import Catalogue
    from simulator.experiment import Experiment
    from simulator.tell.result import Result

WIDTH_WITHOUT_TERMINAL = 110


def main() -> None:
    """Run the command line and exit."""
    try:
        status = moesim.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.exceptions.Abort:
        _fail("interrupted", 1)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except MoesimError as error:
        _fail(str(error), error.exit_code)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, code: int) -> None:
    click.echo(f"moesim: {message}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="moesim")
def moesim() -> None:
    """Simulate training of MoE models on GPU clusters, and show where every second comes from."""


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH_WITHOUT_TERMINAL)


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1))


experiment_options: list[Callable[[Any], Any]] = [
    click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change one value of the experiment, through presets if need be; repeatable.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
    ),
]


def _with_experiment_options(command: Any) -> Any:
    for option in reversed(experiment_options):
        command = option(command)
    return command


@moesim.command()
@click.argument("experiment")
@_with_experiment_options
@click.option("--schedule", metavar="NAME|all", help="Pipeline schedule; 'all' compares them.")
@click.option("--ranks", "play", metavar="auto|folded", help="Which ranks are played.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write result.json, trace.json and figures here."
)
@click.option(
    "--trace",
    "detail",
    type=click.Choice(["chunks", "segments", "kernels"]),
    help="Detail of trace.json; chunks without it.",
)
@click.option("--trace-rank", "ranks", type=int, multiple=True, help="Pipeline ranks to trace.")
def run(
    experiment: str,
    overrides: tuple[str, ...],
    as_json: bool,
    schedule: str | None,
    play: str | None,
    out: Path | None,
    detail: str | None,
    ranks: tuple[int, ...],
) -> None:
    """Simulate EXPERIMENT, a preset or a TOML file.

    KEY descends through presets, VALUE is TOML or a bare word; quantities take units.

    \b
    moesim run deepseek-v3-pretrain --out out/base
    moesim run deepseek-v3-pretrain --set cluster.node.chip=h200
    moesim run deepseek-v3-pretrain --set cluster.node.nic.link_bytes_per_s="200 Gb/s"
    moesim run deepseek-v3-pretrain --set profile=none     (the datasheet's roofline)
    """
    from simulator.tell.result import run as simulate

    chosen = _load(experiment, overrides)
    if play is not None:
        chosen = chosen.with_overrides({"ranks.play": play}, "--ranks")
    if out is None and (detail or ranks):
        raise InputError("--trace, --trace-rank: need --out, the folder to write to")
    if schedule == "all":
        if out is not None:
            raise InputError("--out: --schedule all writes no files; name one schedule")
        _run_all_schedules(chosen, as_json)
        return
    if schedule is not None:
        chosen = chosen.with_overrides({"plan.schedule": schedule}, "--schedule")
    if out:
        _prepare(out, ranks, chosen.plan.pp)
    result = simulate(chosen)
    files = _write(result, out, detail or "chunks", ranks) if out else []
    if as_json:
        click.echo(result.to_json())
        return
    from simulator.tell.summary import show_result

    show_result(_console(), result)
    for file in files:
        click.echo(f"wrote {file}", err=True)


def _load(name: str, overrides: Iterable[str]) -> "Experiment":
    from simulator.experiment import Experiment, parse_override

    experiment = Experiment.load(name)
    values = dict(parse_override(text) for text in overrides)
    return experiment.with_overrides(values, "--set") if values else experiment


def _run_all_schedules(experiment: "Experiment", as_json: bool) -> None:
    """Run every schedule on the same experiment; what cannot run is a row with its reason."""
    from simulator.tell.result import run as simulate
    from simulator.tell.summary import show_schedules
    from workloads.schedules import SCHEDULES

    outcomes: dict[str, Result | InfeasibleError] = {}
    for name in SCHEDULES:
        try:
            outcomes[name] = simulate(
                experiment.with_overrides({"plan.schedule": name}, "--schedule")
            )
        except InfeasibleError as error:
            outcomes[name] = error
    if all(isinstance(outcome, InfeasibleError) for outcome in outcomes.values()):
        raise InfeasibleError(f"no schedule can run this: {outcomes[name]}")
    if as_json:
        _echo_json(
            {
                name: {"infeasible": str(outcome)}
                if isinstance(outcome, InfeasibleError)
                else outcome.model_dump(mode="json")
                for name, outcome in outcomes.items()
            }
        )
        return
    show_schedules(_console(), outcomes)


def _prepare(out: Path, ranks: tuple[int, ...], pp: int) -> None:
    """Refuse what would only fail after the run: a folder that cannot be, a rank there is not."""
    for rank in ranks:
        if not 0 <= rank < pp:
            raise InputError(f"--trace-rank: must be from 0 to {pp - 1}, got {rank}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(out, error) from None


def _cannot_write(path: Path, error: OSError) -> MoesimError:
    """A file where a folder should be is a wrong input; a full or read-only disk is not."""
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        return InputError(f"--out {path}: {(error.strerror or str(error)).lower()}")
    return MachineError(f"--out {path}: {(error.strerror or str(error)).lower()}")


def _write(result: "Result", out: Path, detail: str, ranks: tuple[int, ...]) -> list[Path]:
    """Write everything a run gives to a folder and return the files."""
    from simulator.tell.figures import draw_all

    try:
        files = [out / "result.json", out / "trace.json"]
        files[0].write_text(result.to_json() + "\n", encoding="utf-8")
        result.timeline().to_chrome_trace(files[1], detail, ranks or None)  # type: ignore[arg-type]
        return files + draw_all(result.training_run(), out)
    except OSError as error:
        raise _cannot_write(out, error) from None


@moesim.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def compare(before: Path, after: Path, as_json: bool) -> None:
    """Explain the difference of two results, phase by phase.

    BEFORE and AFTER are result.json files or folders that `run --out` wrote.
    """
    from dataclasses import asdict

    from simulator.tell.compare import compare as explain
    from simulator.tell.result import Result
    from simulator.tell.summary import show_comparison

    comparison = explain(Result.load(before), Result.load(after))
    if as_json:
        _echo_json(asdict(comparison))
    else:
        show_comparison(_console(), comparison)


@moesim.command()
@click.argument("result", type=click.Path(path_type=Path))
def plot(result: Path) -> None:
    """Draw the figures of a result again, beside it.

    RESULT is a result.json file or a folder that `run --out` wrote.
    """
    from simulator.tell.figures import draw_all
    from simulator.tell.result import Result

    folder = result if result.is_dir() else result.parent
    training = Result.load(result).training_run()
    try:
        files = draw_all(training, folder)
    except OSError as error:
        raise _cannot_write(folder, error) from None
    for file in files:
        click.echo(f"wrote {file}", err=True)


@moesim.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def reproduce(names: tuple[str, ...], as_json: bool) -> None:
    """Print published figures beside ours, with the error of each.

    NAMES are ids or their beginnings, such as isca25.table4; all figures without names.
    """
    from simulator.tell.published import reproduce as compute
    from simulator.tell.summary import show_published

    rows = compute(names)
    if as_json:
        _echo_json({"rows": [row.as_dict() for row in rows]})
    else:
        show_published(_console(), rows)


def _catalogues() -> "dict[str, Catalogue[Any]]":
    from hwmodels.chip import CHIPS
    from hwmodels.cluster import CLUSTERS
    from hwmodels.node import NODES
    from hwmodels.profile import PROFILES
    from simulator.experiment import EXPERIMENTS
    from workloads.model import MODELS

    catalogues = (CHIPS, NODES, CLUSTERS, PROFILES, MODELS, EXPERIMENTS)
    return {catalogue.kind: catalogue for catalogue in catalogues}


@moesim.command(name="list")
@click.argument("kind", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def list_presets(kind: str | None, as_json: bool) -> None:
    """List presets, fabrics and schedules, all or of one KIND."""
    from hwmodels.errors import SpecError, suggestion
    from hwmodels.fabrics import FabricSpec
    from workloads.schedules import SCHEDULES

    names = {name: list(catalogue.names()) for name, catalogue in _catalogues().items()}
    names |= {"fabric": sorted(FabricSpec.kinds), "schedule": sorted(SCHEDULES)}
    if kind is not None:
        singular = kind.removesuffix("s")
        if singular not in names:
            raise SpecError(f"list: unknown kind {kind!r}{suggestion(kind, names)}")
        names = {singular: names[singular]}
    if as_json:
        _echo_json(names)
        return
    for name, entries in names.items():
        click.echo(f"{name:11} {'  '.join(entries)}")


@moesim.command()
@click.argument("kind")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def show(kind: str, name: str, as_json: bool) -> None:
    """Print every value of preset NAME with its source.

    KIND is chip, node, cluster, profile, model or experiment.
    """
    from hwmodels.errors import SpecError, suggestion
    from simulator.tell.summary import show_preset

    catalogues, singular = _catalogues(), kind.removesuffix("s")
    if singular not in catalogues:
        raise SpecError(f"show: unknown kind {kind!r}{suggestion(kind, catalogues)}")
    catalogue = catalogues[singular]
    spec, document = catalogue.load(name), catalogue.document(name)
    if as_json:
        sources = {path: source.model_dump() for path, source in document.sources.items()}
        _echo_json({"values": spec.model_dump(mode="json"), "sources": sources})
    else:
        show_preset(_console(), spec.model_dump(mode="json"), document)


@moesim.command()
def schema() -> None:
    """Print the JSON schema of result.json."""
    from simulator.tell.result import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)


@moesim.group()
def calibrate() -> None:
    """Fit a kernel profile to measurements, or judge a fit."""


trace_option = click.option(
    "--trace",
    type=click.Path(path_type=Path),
    required=True,
    help="PyTorch profiler trace (.json or .json.gz) of DeepSeek's DualPipe training run.",
)


@calibrate.command()
@trace_option
@click.option(
    "--gemm-table",
    "tables",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Parquet table of timed BF16 GEMMs on H100 SXM; repeatable.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write; stdout without it.")
def fit(trace: Path, tables: tuple[Path, ...], out: Path | None) -> None:
    """Fit the profile h800-deepseek again and print it as TOML."""
    from calibration.h800_deepseek import profile_text
    from hwmodels.chip import CHIPS

    text = profile_text(trace, tables, CHIPS.load("h800"))
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(out, error) from None


@calibrate.command()
@trace_option
def score(trace: Path) -> None:
    """Judge the fit by family, and on layers and kernels it has not seen."""
    from calibration.fit import fit_rows
    from calibration.report import family_errors, report_lines
    from calibration.score import score_trace
    from calibration.trace_rows import read_trace_data
    from hwmodels.chip import CHIPS

    chip, data = CHIPS.load("h800"), read_trace_data(trace)
    families = family_errors(data, fit_rows(data, chip))
    click.echo("\n".join(report_lines(families, score_trace(data, chip))))


if __name__ == "__main__":
    main()
