"""`pytest tests/golden --refresh-golden` writes the golden files anew; their diff is to be read."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-golden", action="store_true", help="write what the runs give now; read the diff"
    )


@pytest.fixture
def refreshing(request: pytest.FixtureRequest) -> bool:
    """Whether the files are to be written. Only a run of this folder knows the option."""
    return bool(request.config.getoption("--refresh-golden", default=False))
