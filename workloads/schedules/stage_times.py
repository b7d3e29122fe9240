"""Seconds of the stages of a pipeline, which closed forms of schedules are made of."""

from dataclasses import dataclass

from hwmodels.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class StageTimes:
    """(stages,) seconds of what a rank does with one micro-batch on each stage.

    Attributes:
        forward_s: a forward alone.
        backward_s: a full backward alone, weight gradient included.
        input_s: a backward that puts its weight gradient off; weight_s: that weight gradient.
        pair_s: a forward overlapped with the full backward on stage `stages - 1 - s`, the other one
            of a rank that holds two; where none are overlapped, nobody reads it.
    """

    forward_s: Floats
    backward_s: Floats
    input_s: Floats
    weight_s: Floats
    pair_s: Floats
