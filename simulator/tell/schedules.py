"""Results of one plan under several schedules, side by side: one row a schedule, fastest first."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from hwmodels.errors import InputError
from simulator.tell.headlines import MEMORY, Headline, shown
from simulator.tell.outcome import phase_path
from simulator.tell.result import Result
from simulator.tell.terminal import table
from workloads.phases import IDLE


def show_schedules(
    console: Console,
    outcomes: Mapping[str, Result | InputError],
    notes: Mapping[str, Sequence[str]],
) -> None:
    """Print a row a schedule that ran, then why the others did not.

    Args:
        outcomes: by schedule; at least one of them a result.
        notes: of each, what else to know of it.
    """
    results = {name: each for name, each in outcomes.items() if isinstance(each, Result)}
    columns = compared(next(iter(results.values())))
    grid = table("pipeline schedules", "", *(each.title for each in columns))
    for name in sorted(results, key=lambda name: results[name].numbers[columns[0].name]):
        numbers = results[name].numbers
        grid.add_row(name, *(shown(numbers[each.name], each.unit) for each in columns))
    console.print(grid)
    for note, names in _by_note(notes).items():
        console.print(f"{', '.join(names)}: {note}", highlight=False, markup=False)
    for name, outcome in outcomes.items():
        if isinstance(outcome, InputError):
            console.print(f"{name}: {outcome}", highlight=False, markup=False)


def compared(result: Result) -> list[Headline]:
    """Return the numbers that schedules are compared by: the first of the metrics, idle time, the
    shares of a peak, and memory.
    """
    first, *rest = result.metrics.headline
    idle = [each for each in result.headlines if each.name == phase_path(IDLE)]
    return [first, *idle, *(each for each in rest if each.unit == "share"), MEMORY]


def _by_note(notes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the schedules that a note is told of."""
    names: dict[str, list[str]] = {}
    for name, told in notes.items():
        for note in told:
            names.setdefault(note, []).append(name)
    return names
