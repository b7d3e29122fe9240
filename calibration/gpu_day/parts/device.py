"""What the device gives at best: a copy, tensor cores, a launch; and how its clock holds.

Everything else is judged against these. Its name, memory, clocks and versions are in `day.json`.
"""

from calibration.gpu_day.day import Day
from calibration.gpu_day.parts import Estimate, of_rows
from calibration.gpu_day.sizes import Sizes
from calibration.measure.measurement import Point

NUMBER, SHARE, LEAST_S = 1, 0.05, 12.0

TENSOR_STEPS = 1024


def points(sizes: Sizes) -> list[Point]:
    """Return the probes, each also back to back until the clock has settled."""
    copy = {"bytes": sizes.copy_bytes()}
    largest = sizes.shapes("probe_tensor_rate")[0]
    tensor = [{**largest, "format": name} for name in ("bf16", "fp8")]
    return [
        Point("probe_copy", copy),
        Point("probe_copy", copy, "torch"),
        *(Point("probe_tensor_rate", shape) for shape in tensor),
        Point("probe_launch", {"launches": 1}),
        Point("probe_launch", {"launches": 100}),
        *(Point("probe_tensor_rate", shape, sustained=True) for shape in tensor),
        Point("probe_copy", copy, sustained=True),
    ]


def estimate(sizes: Sizes) -> Estimate:
    """Return what the probes take."""
    return of_rows(points(sizes))


def run(day: Day) -> None:
    """Measure the probes."""
    day.measure(points(day.sizes))
