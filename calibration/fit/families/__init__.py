"""How kernels of each kind are fitted: a module a kind of cost function, found by its name.

A module of this package has `cost_model(rows, chip)`: constants to start from, several where the
fit may end in a wrong valley, with the structure of the library, which is never fitted; and the
constants that are free, with their least and largest values.
"""

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from calibration.rows import KernelRows
from hwmodels.chip import ChipSpec
from hwmodels.costs import Parameters

Bounds = Mapping[str, tuple[float, float]]


class CostModel(NamedTuple):
    """Constants to start from, and which of them are free within what."""

    starts: tuple[Parameters, ...]
    free: Bounds


def cost_model(rows: KernelRows, chip: ChipSpec) -> CostModel:
    """Return how rows are fitted."""
    module = importlib.import_module(f"{__name__}.{rows.kind}")
    model = module.cost_model(rows, chip)
    assert isinstance(model, CostModel), f"{module.__name__} returns a CostModel"
    return model
