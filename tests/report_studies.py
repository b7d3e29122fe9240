"""Studies that no one ran, for tests of their pages: small, of any size, or with odd texts."""

from typing import Any

import numpy as np
import pandas as pd

from simulator.tell.headlines import Headline
from simulator.tell.study_table import AxisColumn, FigureSpec, StudyDocument, StudyTable

STEP = Headline("step_time_s", "step time", "s", "less")
PRICE = Headline("network_usd", "network price", "USD", "less")
MFU = Headline("mfu_causal", "MFU, causal", "share", "more")
NUMBERS = (STEP, PRICE, MFU)
TOO_FULL = "memory of pipeline rank 1: needs 75.9 GB, the GPU has 70 GB"


def small_study(**changes: Any) -> StudyTable:
    """A study of NVLink by topology, twelve points: four a topology, the fourth cannot run.

    Args:
        changes: of its document.
    """
    rows = [
        {
            "point": 4 * topology + place,
            "nvlink": rate,
            "topology": name,
            "feasible": place < 3,
            "reason": "" if place < 3 else TOO_FULL.replace("75.9", f"{75.9 + topology}"),
            "fidelity": "play",
            "seed": 4 * topology + place,
            "pareto": place == topology,
        }
        | (_numbers(10.0 - topology - place, 3e7 + 1e6 * place) if place < 3 else {})
        for topology, name in enumerate(("mpft", "mrft", "ft3"))
        for place, rate in enumerate((80e9, 160e9, 200e9, 450e9))
    ]
    return StudyTable(_document(len(rows), **changes), pd.DataFrame(rows))


def _numbers(step_s: float, usd: float) -> dict[str, float]:
    return {
        "step_time_s": step_s,
        "step_time_s.p10": 0.95 * step_s,
        "step_time_s.p90": 1.1 * step_s,
        "network_usd": usd,
        "mfu_causal": 3.0 / step_s,
    }


def large_study(rows: int, numbers: int) -> StudyTable:
    """A study with random numbers: two axes, and as many numbers as are asked for."""
    chance = np.random.default_rng(0)
    columns = (
        STEP,
        *(Headline(f"n{each}", f"number {each}", "", "more") for each in range(1, numbers)),
    )
    frame = pd.DataFrame(
        {each.name: chance.lognormal(0.0, 1.0, rows) for each in columns}
        | {
            "point": np.arange(rows),
            "nvlink": np.tile(np.geomspace(80e9, 900e9, 100), rows // 100),
            "topology": np.repeat(["mpft", "mrft", "ft3", "dragonfly"], rows // 4),
            "feasible": True,
            "reason": "",
            "fidelity": "play",
            "seed": np.arange(rows),
            "pareto": False,
        }
    )
    stopped = frame.index % 10 == 0
    frame.loc[stopped, "feasible"] = False
    frame.loc[stopped, "reason"] = [
        f"needs {n} GB, the GPU has 80 GB" for n in np.flatnonzero(stopped)
    ]
    frame.loc[stopped, [each.name for each in columns]] = np.nan
    labels = ("mpft", "mrft", "ft3", "dragonfly")
    document = _document(rows, columns=columns, objectives=("step_time_s",), labels=labels)
    return StudyTable(document, frame)


def _document(
    points: int, labels: tuple[str, ...] = ("mpft", "mrft", "ft3"), **changes: Any
) -> StudyDocument:
    values: dict[str, Any] = {
        "name": "nvlink",
        "title": "How much NVLink does a step need?",
        "about": "NVLink by topology.",
        "axes": (
            AxisColumn(name="nvlink", title="NVLink", unit="B/s", log=True, base=200e9),
            AxisColumn(name="topology", title="network", labels=labels, base="mpft"),
        ),
        "columns": NUMBERS,
        "objectives": ("step_time_s", "network_usd"),
        "figures": (
            FigureSpec(
                kind="curves",
                name="step",
                title="Beyond 160 GB/s it buys little",
                x="nvlink",
                y=("mfu_causal",),
                by="topology",
            ),
        ),
        "points": points,
        "digest": "d1" * 32,
        "asked": {"experiment": "deepseek-v3-pretrain"},
        "base": {"name": "deepseek-v3-pretrain"},
        "version": "0.1.0",
    }
    return StudyDocument.model_validate(values | changes)
