"""These tests run the kernels in Triton's CPU interpreter, in a pytest process of their own.

    TRITON_INTERPRET=1 pytest tests/kernels/interpret

The variable is read when a kernel is defined, so it must be set before any import, and compiling
(tests/kernels/compile) is impossible in the same process.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, where the interpreter is not on."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    reason = "needs TRITON_INTERPRET=1 and its own pytest process"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))
