"""A launch finds what was compiled ahead of it, so that a borrowed GPU waits for no compiler."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kernels.compile.compiler import CHECKOUT
from tests.kernels.compile.tritons import TRITONS, environment, require, version_of

LIMIT_S = 600  # takes half a minute on a core of its own

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter cannot compile"
)

Told = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """What `launches` tells with a Triton; all run beside each other."""
    processes = {
        triton: subprocess.Popen(
            [sys.executable, "-m", "tests.kernels.compile.launches"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=CHECKOUT, env=environment(triton),
        )
        for triton in TRITONS
        if version_of(triton)
    }  # fmt: skip
    known: dict[str, dict[str, Any]] = {}

    def ask(triton: str) -> dict[str, Any]:
        exact = require(triton)
        if triton not in known:
            out, errors = processes[triton].communicate(timeout=LIMIT_S)
            assert processes[triton].returncode == 0, errors
            known[triton] = json.loads(out)
        assert known[triton]["triton"] == exact
        return known[triton]

    yield ask
    for triton in processes.keys() - known.keys():
        processes[triton].kill()
        processes[triton].communicate()


@pytest.mark.parametrize("triton", TRITONS)
def test_every_launch_of_a_day_asks_for_what_was_compiled_ahead(triton: str, told: Told) -> None:
    """The same specialisation, constants, options and target; source and compiler are the same."""
    found = told(triton)
    assert found["points"] > 500
    assert not found["different"]


@pytest.mark.parametrize("triton", TRITONS)
def test_the_comparison_sees_where_tensors_lie(triton: str, told: Told) -> None:
    """Off 16 bytes every launch that takes a tensor asks for another kernel."""
    assert told(triton)["moved"] > 10
    assert not told(triton)["blind"]


@pytest.mark.parametrize("triton", TRITONS)
def test_a_launch_compiles_nothing_that_another_process_has(triton: str, told: Told) -> None:
    found = told(triton)
    assert found["launched"] >= 8
    assert not found["compiled_again"]
    assert found["not_compiled_before"] == ["_copy_kernel"]
