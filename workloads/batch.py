"""How much one training step computes: sequences, their length, and the micro-batch."""

from hwmodels.errors import InfeasibleError
from hwmodels.spec import Spec
from hwmodels.units import Count


class BatchSpec(Spec):
    """The global batch of one step.

    Attributes:
        sequences: sequences of one step over all pipelines.
        sequence_length: tokens of one sequence.
        microbatch_sequences: sequences that travel a pipeline together.
    """

    sequences: Count
    sequence_length: Count
    microbatch_sequences: Count = 1

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.sequences * self.sequence_length

    @property
    def microbatch_tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.microbatch_sequences * self.sequence_length

    def microbatches(self, dp: int) -> int:
        """Micro-batches that each of `dp` pipelines runs in one step.

        Raises:
            InfeasibleError: the sequences do not divide.
        """
        share = dp * self.microbatch_sequences
        if self.sequences % share:
            raise InfeasibleError(
                f"batch.sequences: must be a multiple of dp x microbatch_sequences "
                f"({dp} x {self.microbatch_sequences} = {share}), got {self.sequences}"
            )
        return self.sequences // share
