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
    from simulator.study.document import StudySpec, load_study
    from simulator.study.run import Study
    from simulator.tell.metrics import Metrics
    from simulator.tell.result import Result
    from simulator.tell.study_table import StudyTable
    from simulator.tell.trace import StepTrace

__all__ = [
    "Experiment", "Metrics", "Result", "StepTrace", "Study", "StudySpec", "StudyTable",
    "load_study", "play", "run", "run_many", "simulate",
]  # fmt: skip

_HOMES = {
    "Experiment": "simulator.experiment",
    "Metrics": "simulator.tell.metrics",
    "Result": "simulator.tell.result",
    "StepTrace": "simulator.tell.trace",
    "Study": "simulator.study.run",
    "StudySpec": "simulator.study.document",
    "StudyTable": "simulator.tell.study_table",
    "load_study": "simulator.study.document",
    "play": "simulator.driver.points",
    "run": "simulator.driver.run",
    "run_many": "simulator.driver.run",
    "simulate": "simulator.driver.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
