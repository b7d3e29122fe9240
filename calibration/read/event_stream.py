"""The events of a profiler trace one by one: Chrome's JSON, plain or gzip, of any length.

Events are decoded out of a window that slides over the file, so memory holds the window and one
event. They stand in a list, or under `traceEvents` of a table, wherever that key is in it.

A trace is somebody else's file: whatever is wrong with it raises a `CalibrationError` of one line.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from hwmodels.errors import CalibrationError, found_at, shown

MAX_BYTES, MAX_EVENTS = 2**32, 2**24
"""Longest trace read, uncompressed: a gzip bomb of many values stops here."""
VALUE_CHARACTERS = 2**22
"""Longest event, value beside `traceEvents` and run of spaces: a bomb of one value stops here."""
EVENTS = "traceEvents"

_CHUNK_BYTES = 2**18
_SPACES = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(strict=False)  # kernel names were seen with control characters

Event = Mapping[str, Any]


class EventStream:
    """A trace file to be read once, event by event.

    Attributes:
        path: the file.
        header: values beside the events, of the keys asked for; whole when the events are through.
    """

    def __init__(self, path: Path, keep: Collection[str] = ()) -> None:
        self.path = path
        self._keep = keep
        self.header: dict[str, Any] = {}
        self._text, self._at, self._ended = "", 0, False
        self._bytes = self._events_read = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")

    def __iter__(self) -> Iterator[Event]:
        """Yield the events in the order of the file.

        Raises:
            CalibrationError: the file cannot be read, is cut off, too large or no such trace.
        """
        try:
            with _opened(self.path) as stream:
                self._file = stream
                yield from self._document()
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise self._refused("got a broken archive") from None
        except OSError:
            raise self._refused(f"got {found_at(self.path)}") from None

    def _document(self) -> Iterator[Event]:
        found = False
        if self._peek() == "[":
            found = True
            yield from self._events()
        else:
            for name in self._names():
                if name == EVENTS and self._peek() == "[":
                    found = True
                    yield from self._events()
                else:
                    value = self._value()
                    if name in self._keep:
                        self.header[name] = value
        if self._peek():
            raise self._unlike("its end")
        if not found:
            raise CalibrationError(f"{self.path}: no list of events under {EVENTS!r}")

    def _events(self) -> Iterator[Event]:
        for _ in self._places("[", "]"):
            event = self._value()
            if not isinstance(event, dict):
                where = f"{self.path}: no list of events under {EVENTS!r}"
                raise CalibrationError(f"{where}: event {self._events_read} is {shown(event)}")
            self._events_read += 1
            if self._events_read > MAX_EVENTS:
                raise CalibrationError(f"{self.path}: more than {MAX_EVENTS} events, too many")
            yield event

    def _names(self) -> Iterator[str]:
        """Yield the keys of a table, each with its value next in the window."""
        for _ in self._places("{", "}"):
            if self._peek() != '"':
                raise self._unlike("a key")
            name = cast("str", self._value())
            self._take(":")
            yield name

    def _places(self, opening: str, closing: str) -> Iterator[None]:
        """Yield at every item of a list or table; whoever iterates takes the item."""
        self._take(opening)
        if self._peek() == closing:
            self._take(closing)
            return
        while True:
            yield
            if self._peek() == closing:
                self._take(closing)
                return
            self._take(",")

    def _value(self) -> Any:
        """Return the JSON value that is next, read on until it is whole."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:  # of integers of too many digits, too
                if self._ended or len(self._text) - self._at > VALUE_CHARACTERS:
                    raise self._broken(str(error)) from None
            else:
                if end < len(self._text) or self._ended:  # a number at the edge may go on
                    self._at = end
                    return value
            self._read_on()

    def _peek(self) -> str:
        """Return the next character that is no space, or "" at the end of the file."""
        skipped = 0
        while True:
            match = _SPACES.match(self._text, self._at)
            assert match is not None, "no space at all matches, too"
            skipped += match.end() - self._at
            self._at = match.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            if skipped > VALUE_CHARACTERS:
                raise self._broken(f"more than {VALUE_CHARACTERS} spaces in a row")
            self._read_on()

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise self._unlike(repr(character))
        self._at += 1

    def _read_on(self) -> None:
        """Slide the window: drop what was taken, add a chunk twice as long as what is left."""
        rest = self._text[self._at :]
        chunk = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._bytes += len(chunk)
        if self._bytes > MAX_BYTES:
            raise CalibrationError(f"{self.path}: trace above {MAX_BYTES >> 20} MiB, too large")
        self._ended = not chunk
        self._text, self._at = rest + self._utf8.decode(chunk, final=self._ended), 0

    def _refused(self, why: str) -> CalibrationError:
        return CalibrationError(f"{self.path}: expected a profiler trace, {why}")

    def _broken(self, why: str) -> CalibrationError:
        where = f"after {self._events_read} events: " if self._events_read else ""
        return CalibrationError(f"{self.path}: not JSON, or cut off: {where}{why}")

    def _unlike(self, expected: str) -> CalibrationError:
        found = repr(self._peek()) if self._peek() else "the end of the file"
        return self._broken(f"expected {expected}, got {found}")


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")
