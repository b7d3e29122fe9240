"""Small studies that tests run: a step that is played in milliseconds, on a few dozen machines."""

import tomllib

SMALL = """
title = "What does NVLink do for a small step?"
objectives = ["step_time_s", "mfu_causal"]
usd_per_gpu_hour = 2.0

[experiment]
base = "deepseek-v3-pretrain"
plan = { pp = 4, ep = 8, schedule = "1f1b" }
batch.sequences = 160
ranks.draws = 1

[experiment.cluster]
base = "h800-2048-mpft"
nodes = 8
node.chip.hbm_capacity_bytes = "2 TB"

[[axes]]
name = "nvlink"
set = { "cluster.node.chip.nvlink_bytes_per_s" = { from = "80 GB/s", to = "450 GB/s", count = 8, log = true } }

[[axes]]
name = "sms"
set = { "communication.sms" = [8, 20, 132] }
"""  # noqa: E501

POINTS, CAN_RUN = 24, 16


def small(**changes):
    """Return the document of the small study with other values."""
    return tomllib.loads(SMALL) | {"name": "small"} | changes
