"""Which points no other point beats in all objectives at once."""

import numpy as np
import pandas as pd

from hwmodels.arrays import Floats, Mask
from simulator.tell.study_table import FEASIBLE, StudyDocument


def front(frame: pd.DataFrame, document: StudyDocument) -> Mask:
    """Return (rows,) whether a row is feasible and no other is as good in all objectives and better
    in one.
    """
    values = losses(frame, document)
    able = frame[FEASIBLE].to_numpy(bool) & np.isfinite(values).all(axis=1)
    found = np.zeros(len(frame), np.bool_)
    found[able] = undominated(values[able])
    return found


def losses(frame: pd.DataFrame, document: StudyDocument) -> Floats:
    """Return (rows, objectives) values of which less is better."""
    better = {column.name: column.better for column in document.columns}
    signs = [-1.0 if better[name] == "more" else 1.0 for name in document.objectives]
    return np.asarray(frame[list(document.objectives)].to_numpy(np.float64) * signs)


def undominated(values: Floats) -> Mask:
    """Return (rows,) which of (rows, objectives) no other is at most and somewhere below.

    Rows are taken best first, so that a row can only be beaten by one of the front before it.
    """
    order = np.lexsort(values.T[::-1])
    found = np.zeros(len(values), np.bool_)
    kept = np.empty_like(values)
    count = 0
    for row in order:
        value = values[row]
        before = kept[:count]
        beaten = (before <= value).all(axis=1) & (before < value).any(axis=1)
        if not beaten.any():
            kept[count] = value
            count += 1
            found[row] = True
    return found
