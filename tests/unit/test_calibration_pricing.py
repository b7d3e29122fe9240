"""Calibration and simulation price an op alike: what was fitted is what is simulated."""

import numpy as np

from calibration.fit.pricing import Pricer
from calibration.read.trace_rows import TraceRow, layer_ops
from hwmodels.chip import CHIPS
from hwmodels.profile import PROFILES
from simulator.price.kernels import KernelPricer

CHIP = CHIPS.load("h800")
PROFILE = PROFILES.load("h800-deepseek")


def test_the_fit_and_the_simulator_agree_on_every_op_of_a_layer() -> None:
    load = 1.07
    keys = layer_ops()
    rows = [
        TraceRow(op, phase, 0, load if op.routed else 1.0, 1.0, 0.0)
        for (phase, _), op in keys.items()
    ]
    families = PROFILE.families()
    fitted_s = Pricer(CHIP, 112, families).time_s(rows)
    ops = [row.op for row in rows]
    simulated = KernelPricer(CHIP, PROFILE, 112).price(ops, load)
    np.testing.assert_allclose(fitted_s, simulated.duration_s[:, 0], rtol=1e-9)
