"""Run the parts of a day one after another."""

import sys
from collections.abc import Mapping

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Part
from calibration.measure.machine import check_alive, first_line
from hwmodels.errors import MachineError


def run_parts(day: Day, parts: Mapping[str, Part]) -> None:
    """Run `parts` in their order; a part that fails is recorded and the next one starts.

    Raises:
        MachineError: the device has failed, and nothing after it could be measured.
    """
    to_come = sum(part.SHARE for part in parts.values())
    for name, part in parts.items():
        to_come -= part.SHARE
        day.budget.begin_part(part.SHARE, to_come, part.LEAST_S)
        _run_part(day, name, part)
    day.record["doing"] = None
    day.keep()


def _run_part(day: Day, name: str, part: Part) -> None:
    began_s, rows = day.budget.spent_s, day.rows_done
    day.cut_off = False
    told = {"state": "running", "seconds": 0.0, "rows": 0, "error": ""}
    day.record["parts"][name] = told
    day.keep()
    try:
        part.run(day)
        told["state"] = "cut off" if day.cut_off else "done"
    except MachineError as error:
        told |= {"state": "failed", "error": first_line(error)}
        raise
    except Exception as error:  # whatever it was, the other parts are worth their time
        told |= {"state": "failed", "error": f"{type(error).__name__}: {first_line(error)}"}
        check_alive(day.machine, error)
    finally:
        told |= {"seconds": day.budget.spent_s - began_s, "rows": day.rows_done - rows}
        day.record["parts"][name] = told
        day.keep()
        end = "\n" if sys.stderr.isatty() else ""
        why = f": {told['error']}" if told["error"] else ""
        sys.stderr.write(
            f"{end}{name}: {told['state']}, {told['rows']} rows in {told['seconds']:.0f} s{why}\n"
        )
