"""The batch and its micro-batches."""

import pytest

from hwmodels.errors import InfeasibleError, SpecError
from hwmodels.spec import validate
from workloads.batch import BatchSpec

V3_BATCH = BatchSpec(sequences=15360, sequence_length=4096)


def test_v3_gives_each_of_its_128_pipelines_120_microbatches():
    """15,360 sequences of 4,096 tokens over 2048 / 16 pipelines (arXiv 2412.19437v2 §4.2)."""
    assert V3_BATCH.microbatches(dp=128) == 120
    assert V3_BATCH.tokens == 62_914_560
    assert V3_BATCH.microbatch_tokens == 4096


def test_larger_microbatches_are_fewer():
    batch = BatchSpec(sequences=15360, sequence_length=4096, microbatch_sequences=2)
    assert batch.microbatches(dp=128) == 60
    assert batch.microbatch_tokens == 8192


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(
        InfeasibleError, match=r"dp x microbatch_sequences \(7 x 1 = 7\), got 15360"
    ):
        V3_BATCH.microbatches(dp=7)


def test_zero_sequences_are_refused():
    with pytest.raises(SpecError, match=r"sequences: .*got 0"):
        validate(BatchSpec, {"sequences": 0, "sequence_length": 1})
