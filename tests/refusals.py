"""The experiment that tests change, and the error with which a change is refused."""

import pytest

from hwmodels.errors import InputError
from simulator import Experiment, run

MPFT = Experiment.load("deepseek-v3-pretrain")


def refusal(values):
    """Return the error of an experiment, whether its document or its run is refused."""
    with pytest.raises(InputError) as error:
        run(MPFT.with_overrides(values))
    return error.value
