"""Events out of a sliding window: the same as all at once, and nothing hostile gets far."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.read import event_stream
from calibration.read.event_stream import EventStream
from hwmodels.errors import CalibrationError

EVENTS = [{"name": "é\t\\", "args": {"grid": [1, 2], "of": None}}, {}, {"ts": 1.5e3, "ok": True}]


def read(path: Path, content: bytes) -> list[Any]:
    path.write_bytes(content)
    return list(EventStream(path))


@pytest.mark.parametrize(
    "document",
    [
        EVENTS,
        {"traceEvents": EVENTS},
        {"schemaVersion": 1, "nested": {"traceEvents": [3]}, "traceEvents": EVENTS, "n": -0.5},
        {"traceEvents": [], "more": [[[]]]},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 2**18])
def test_events_are_those_of_the_whole_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Any, packed: bool, chunk: int
) -> None:
    monkeypatch.setattr(event_stream, "_CHUNK_BYTES", chunk)
    text = json.dumps(document, ensure_ascii=False, indent=2).encode() + b"\n"
    expected = document if isinstance(document, list) else document["traceEvents"]
    assert read(tmp_path / "t", gzip.compress(text) if packed else text) == expected


@given(
    st.lists(st.dictionaries(st.text(), st.recursive(st.integers() | st.text(), st.lists))),
    st.integers(1, 40),
)
def test_no_cut_between_chunks_changes_an_event(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_stream, "_CHUNK_BYTES", chunk)
        text = json.dumps({"a": 12, "traceEvents": events}, ensure_ascii=False)
        assert read(tmp_path_factory.mktemp("t") / "t", text.encode()) == events


def test_only_what_is_asked_for_is_kept_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(json.dumps({"a": 1, "traceEvents": [{}], "b": [2]}), encoding="utf-8")
    stream = EventStream(path, ["b", "c"])
    assert list(stream) == [{}]
    assert stream.header == {"b": [2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{}", "after 1 events: expected ',', got the end of the file"),
        (b"[{},]", "cut off: after 1 events: Expecting value"),
        (b"[{}] {}", "expected its end, got '{'"),
        (b"[{} {}]", "expected ',', got '{'"),
        (b"{1: 2}", "expected a key, got '1'"),
        (b'{"traceEvents" [1]}', "expected ':', got '\\['"),
        (b'{"a": ' + b"1" * 5000 + b"}", "limit"),
        (b'[{"a": ' + b"[" * 10_000 + b"}]", "recursion"),
        (b"12", "expected '{', got '1'"),
    ],
)
def test_what_is_no_json_is_told_where(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path / "t", content)


@pytest.mark.parametrize(
    ("limit", "content", "message"),
    [
        ("VALUE_CHARACTERS", b"[" + b" " * 10_000, "more than 1000 spaces"),
        ("VALUE_CHARACTERS", b'[{"a": "' + b"x" * 10_000, "Unterminated string"),
        ("MAX_BYTES", b"[" + b"{}," * 10_000, "too large"),
        ("MAX_EVENTS", b"[" + b"{}," * 10_000, "more than 1000 events"),
    ],
)
def test_a_gzip_bomb_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, content: bytes, message: str
) -> None:
    monkeypatch.setattr(event_stream, limit, 1000)
    monkeypatch.setattr(event_stream, "_CHUNK_BYTES", 100)
    with pytest.raises(CalibrationError, match=message):
        read(tmp_path / "t", gzip.compress(content + b"never looked at"))
