"""These tests need an NVIDIA GPU: `pytest -m gpu`. Without one they skip, saying so."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder; skip it where there is no GPU."""
    mine = [item for item in items if HERE in item.path.parents]
    reason = missing()
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def missing() -> str:
    """Return what this machine lacks, empty if nothing."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        return f"needs PyTorch and Triton: {error}"
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU: PyTorch sees no CUDA device"
    if torch.cuda.get_device_capability() < (9, 0):
        return "needs a Hopper GPU or newer: compute capability 9.0"
    return ""
