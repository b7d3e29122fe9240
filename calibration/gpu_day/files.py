"""The files of a day: their names and columns, for those who write them and those who read them.

Nothing here needs PyTorch or Triton, for a day is read anywhere. The columns of `ROWS` are those of
`calibration.measure.measurement.Measurement`.
"""

RECORD, SCHEMA = "day.json", 1
"""Device, versions, parts, suspects, written anew with every row; and which form of it this is."""

ROWS = "rows.csv"
"""Measured rows of all parts but the checks of numbers."""

NUMERICS, NUMERICS_ROWS = "numerics.csv", "checked numbers"
"""Every kernel's outputs against its float64 reference; and what its rows are, for messages."""

NUMERICS_COLUMNS = ("kernel", "shape", "config", "output", "error", "bound", "verdict", "note",
                    "device", "date")  # fmt: skip

RIGHT, WRONG, FAILED = "right", "wrong", "failed"
"""Verdicts of a check."""

STACK, STACK_ROWS = "stack.csv", "times of a layer"
"""A whole layer, op by op and in total; and what its rows are, for messages."""

STACK_COLUMNS = ("layer", "mode", "op", "where", "kernel", "shape", "p20_s", "p50_s", "p80_s",
                 "runs", "host_s", "flops", "bytes", "sm_clock_hz", "power_w", "temperature_c",
                 "device", "date", "without", "error")  # fmt: skip

EAGER, GRAPH, BLOCKING = "eager", "graph", "blocking"
"""How a layer was played: launched op by op, as one CUDA graph, or waiting for every op."""

TOTAL = "total"
"""The op of a row that is the whole layer."""

PROFILE = "profile.json.gz"
"""The profiler's trace of one training pass."""
