"""What tests of studies share."""

import pytest

from simulator.study.document import StudySpec
from simulator.study.run import Study
from tests.unit.study.studies import small


@pytest.fixture(scope="session")
def small_study():
    """The small study, its document changed."""
    return lambda **changes: Study.of(StudySpec.model_validate(small(**changes)))


@pytest.fixture(scope="session")
def small_folder(small_study, tmp_path_factory):
    """The folder of the small study, run by one worker."""
    folder = tmp_path_factory.mktemp("small") / "study"
    small_study().run(folder, workers=1)
    return folder
