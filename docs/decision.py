"""From one run to a study to a decision: a page to read, and to run cell by cell.

    python docs/decision.py out/decision

Say we train DeepSeek-V3 on 2,048 H800s, and next year's budget buys one thing: wider NVLink, wider
NICs, or faster memory. Which?
"""

# ruff: noqa: T201

# %% One run: where does the time go today?
import sys
from pathlib import Path

from simulator import Experiment, Study, StudySpec, run

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "out/decision")

base = Experiment.load("deepseek-v3-pretrain").with_overrides({"ranks.draws": 2})
today = run(base)
print(f"today: {today.metrics.step_time_s:.2f} s a step, MFU {today.metrics.mfu_causal:.1%}")
for phase, seconds in today.breakdown_s.items():
    print(f"  {today.phases[phase]:35} {seconds:6.2f} s")

# %% One study: each part twice as fast, alone and together.
# Fields of one axis move together; axes are crossed, so that 2 x 2 x 2 points tell whether gains
# add up. The same document could be a TOML file for `moesim study`.
chip, node = base.cluster.node.chip, base.cluster.node
spec = StudySpec.model_validate(
    {
        "name": "budget",
        "title": "What is worth buying for DeepSeek-V3's step?",
        "experiment": {"base": "deepseek-v3-pretrain", "ranks": {"draws": 2}},
        "objectives": ["step_time_s", "tokens_per_usd"],
        "usd_per_gpu_hour": 2.0,
        "usd_source": "DeepSeek-V3 technical report (arXiv 2412.19437), Table 1: $2 for an H800",
        "axes": [
            {
                "name": "nvlink",
                "title": "NVLink",
                "set": {
                    "cluster.node.chip.nvlink_bytes_per_s": [
                        chip.nvlink_bytes_per_s,
                        2 * chip.nvlink_bytes_per_s,
                    ]
                },
            },
            {
                "name": "nic",
                "title": "NIC",
                "set": {
                    "cluster.node.nic.link_bytes_per_s": ["400 Gb/s", "800 Gb/s"],
                    "cluster.fabric.link_bytes_per_s": ["400 Gb/s", "800 Gb/s"],
                    "cluster.node.pcie_bytes_per_s": [
                        node.pcie_bytes_per_s,
                        2 * node.pcie_bytes_per_s,
                    ],
                },
            },
            {
                "name": "hbm",
                "title": "HBM",
                "set": {
                    "cluster.node.chip.hbm_bytes_per_s": [
                        chip.hbm_bytes_per_s,
                        2 * chip.hbm_bytes_per_s,
                    ]
                },
            },
        ],
    }
)
study = Study.of(spec)
table = study.run(OUT, workers=1, resume=True)

# %% A study is a table; pandas does the rest.
# `pandas.read_parquet("out/decision/table.parquet")` opens it elsewhere.
frame = table.frame
slow = frame[["nvlink", "nic", "hbm"]].min()
gain = 1 - frame["step_time_s"] / today.metrics.step_time_s
for name in ("nvlink", "nic", "hbm"):
    others = [other for other in ("nvlink", "nic", "hbm") if other != name]
    alone = (frame[name] > slow[name]) & (frame[others] == slow[others]).all(axis=1)
    print(f"twice the {name:6}: {gain[alone].item():6.1%} off the step")
both = (frame[["nvlink", "nic", "hbm"]] > slow).all(axis=1)
print(f"all three:         {gain[both].item():6.1%}")

# %% The decision.
best = frame.loc[frame["step_time_s"].idxmin()]
print(
    f"{best['tokens_per_usd'] / 1e6:.2f} M tokens per dollar at best, "
    f"{frame.loc[0, 'tokens_per_usd'] / 1e6:.2f} M today: the three together may cost at most "
    f"{best['tokens_per_usd'] / frame.loc[0, 'tokens_per_usd'] - 1:.1%} more per GPU-hour."
)
