"""A trace is somebody else's file: whatever was done to it, it is read or refused in one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.fit.traced_profile import traced
from calibration.judge.composition import compose
from calibration.read.torch_trace import read_torch_trace
from hwmodels.errors import CalibrationError
from tests.kineto import training_step

DOCUMENT = training_step().document()
TEXT = json.dumps(DOCUMENT).encode()
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.just([[[[]]]]),
    st.just(10**400),
)
KEYS = ("ph", "cat", "name", "ts", "dur", "tid", "args", "correlation", "stream", "grid",
        "External id", "Input Dims", "Input type", "Concrete Inputs", "device",
        "Collective name")  # fmt: skip


def taken(path: Path, content: bytes) -> None:
    """Read and analyse; nothing but an error of one line may come out."""
    path.write_bytes(content)
    refused = ""
    try:
        trace = read_torch_trace(path)
        compose(trace)
        traced(trace)
    except CalibrationError as error:
        refused = str(error)
    assert refused.isprintable()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace") / "t.json"


@given(st.data())
@settings(max_examples=150)
def test_fields_of_other_types_and_values(path: Path, data: st.DataObject) -> None:
    document: dict[str, Any] = json.loads(TEXT)
    for _ in range(data.draw(st.integers(1, 3))):
        event = data.draw(st.sampled_from(document["traceEvents"]))
        key, value = data.draw(st.sampled_from(KEYS)), data.draw(VALUES)
        owner = event["args"] if key in (event.get("args") or {}) else event
        if isinstance(owner, dict):
            owner[key] = value
    taken(path, json.dumps(document).encode())


@given(st.data())
@settings(max_examples=100)
def test_bytes_that_were_flipped_cut_out_or_doubled(path: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(TEXT)))
    end = min(len(TEXT), start + data.draw(st.integers(0, 40)))
    new = data.draw(st.binary(max_size=8) | st.just(TEXT[start:end] * 2) | st.just(b"[{"))
    content = TEXT[:start] + new + TEXT[end:]
    taken(path, gzip.compress(content) if data.draw(st.booleans()) else content)


@given(st.integers(0, len(TEXT) - 1), st.booleans())
@settings(max_examples=60)
def test_a_file_that_was_cut_off_is_refused(path: Path, length: int, packed: bool) -> None:
    """Anywhere; of a packed one, the archive is whole and what is in it is not."""
    path.write_bytes(gzip.compress(TEXT[:length]) if packed else TEXT[:length])
    with pytest.raises(CalibrationError, match="cut off"):
        read_torch_trace(path)


@given(st.dictionaries(st.text(max_size=12), VALUES), st.lists(st.dictionaries(
    st.sampled_from(KEYS), VALUES | st.sampled_from(["X", "kernel", "cpu_op", "user_annotation"])
), max_size=4))  # fmt: skip
def test_foreign_documents(path: Path, header: dict[str, Any], events: list[Any]) -> None:
    taken(path, json.dumps({**header, "traceEvents": events}).encode())
