"""Run the parts of a day one after another, and again those that were cut off if time is left."""

import sys
from collections.abc import Mapping
from typing import Any

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Part
from calibration.measure.machine import check_alive, first_line
from hwmodels.errors import MachineError

CUT_OFF = "cut off"
NOTHING: Mapping[str, Any] = {"state": "", "seconds": 0.0, "rows": 0, "error": ""}


def run_parts(day: Day, parts: Mapping[str, Part]) -> None:
    """Run `parts` in their order; a part that fails is recorded and the next one starts.

    Raises:
        MachineError: the device has failed, and nothing after it could be measured.
    """
    to_come = sum(part.SHARE for part in parts.values())
    for name, part in parts.items():
        to_come -= part.SHARE
        day.budget.begin_part(part.SHARE, to_come, part.LEAST_S)
        _run_part(day, name, part, day.record["parts"].get(name, NOTHING))
    for name, part in parts.items():  # the last ones may not have needed their share
        if day.record["parts"][name]["state"] == CUT_OFF and day.budget.left_s > 0:
            day.budget.begin_part(1.0, 0.0, 0.0)
            _run_part(day, name, part, day.record["parts"][name])
    day.record["doing"] = None
    day.keep()


def _run_part(day: Day, name: str, part: Part, so_far: Mapping[str, Any]) -> None:
    """Run a part, in addition to what was done of it so far."""
    began_s, rows = day.budget.spent_s - so_far["seconds"], day.rows_done - so_far["rows"]
    day.cut_off = False
    told = {**so_far, "state": "running", "error": ""}
    day.record["parts"][name] = told
    day.keep()
    try:
        part.run(day)
        told["state"] = CUT_OFF if day.cut_off else "done"
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
