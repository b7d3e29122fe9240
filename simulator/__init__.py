"""moesim: simulate training of MoE models on GPU clusters.

    from simulator import Experiment, run

    result = run(Experiment.load("deepseek-v3-pretrain"))
    print(result.metrics.step_time_s)

Names are imported when first used, so that the command line starts without numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.driver.points import play
    from simulator.driver.run import run, run_many, simulate
    from simulator.experiment import Experiment
    from simulator.tell.metrics import Metrics
    from simulator.tell.result import Result
    from simulator.tell.trace import StepTrace

__all__ = ["Experiment", "Metrics", "Result", "StepTrace", "play", "run", "run_many", "simulate"]

_HOMES = {
    "Experiment": "simulator.experiment",
    "Metrics": "simulator.tell.metrics",
    "Result": "simulator.tell.result",
    "StepTrace": "simulator.tell.trace",
    "play": "simulator.driver.points",
    "run": "simulator.driver.run",
    "run_many": "simulator.driver.run",
    "simulate": "simulator.driver.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
