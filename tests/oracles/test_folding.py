"""How far folded play is from playing every rank, on twenty experiments; the table is printed.

Folding lets a chunk end when its slowest rank does and gives every pipeline the same chunks, so it
is exact for balanced loads. With loads drawn anew for each layer and micro-batch it stays close;
the wider the loads, the more it matters that pipelines differ, as the last one ends the step.
"""

import random

from simulator import Experiment
from simulator.driver.step import play

LAYOUTS = {
    2: "3d+28m, 30m+mtp+2heads",
    4: "3d+13m, 15m, 15m, 15m+mtp+2heads",
    8: "3d+5m, 8m, 8m, 8m, 8m, 8m, 8m, 5m+mtp+2heads",
    16: "3d+1m, 14*4m, 1m+mtp+2heads",
}
CLOSE = {0.0: 1e-9, 0.04: 0.005, 0.08: 0.005, 0.15: 0.005, 0.3: 0.01}
"""Relative, by spread of the loads; 0.08 is that of the H800 trace."""


def experiment(number):
    """One of twenty: plan, group, batch, spread of loads and schedule drawn from its number."""
    rng = random.Random(number)
    pp, ep = rng.choice([2, 4, 8, 16]), rng.choice([8, 16, 32, 64])
    dp = ep * rng.choice([1, 2]) if ep < 64 else ep
    microbatches = 2 * pp + 2 * rng.randint(0, 6)
    return Experiment.load("deepseek-v3-pretrain").with_overrides(
        {
            "plan.pp": pp,
            "plan.ep": ep,
            "plan.layout": LAYOUTS[pp],
            "plan.schedule": rng.choice(["dualpipe", "dualpipe", "1f1b", "zb1p"]),
            "cluster.nodes": pp * dp // 8,
            "cluster.node.chip.hbm_capacity_bytes": "4 TB",
            "batch.sequences": dp * microbatches,
            "ranks.play": "explicit",
            "ranks.expert_load.sigma": rng.choice([0.0, 0.04, 0.08, 0.15, 0.3]),
            "ranks.draws": 64,  # so that what is left is folding, not the chance of eight draws
            "ranks.seed": number,
        }
    )


def test_folding_is_exact_for_balanced_loads_and_close_for_loads_drawn_anew(capsys):
    rows, errors = [], []
    for number in range(20):
        given = experiment(number)
        run = play(given)
        plan, sigma = given.plan, given.ranks.expert_load.sigma
        errors.append((sigma, run.folded_timeline.makespan_s / run.explicit.step_s - 1))
        rows.append(
            f"{plan.schedule:9} pp {plan.pp:2} ep {plan.ep:2} dp {given.cluster.gpus // plan.pp:3} "
            f"micro-batches {run.program.microbatches:3} sigma {sigma:.2f} "
            f"step {run.explicit.step_s:7.3f} s  folding {errors[-1][1]:+.3%}"
        )
    with capsys.disabled():
        print("\nfolded against every rank", *rows, sep="\n")  # noqa: T201 - asked for
    assert {sigma for sigma, _ in errors} == set(CLOSE)
    assert all(abs(error) <= CLOSE[sigma] for sigma, error in errors)
