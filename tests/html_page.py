"""A page as a parser sees it: its tags, its text, and what is in its scripts."""

import json
from html.parser import HTMLParser
from typing import Any

VOID = {"br", "col", "img", "input", "link", "meta"}


class HtmlPage(HTMLParser):
    """What a page holds.

    Attributes:
        tags: name and attributes of each, in order.
        text: all that is not in a script or a style.
        scripts: text of each script by its id; of those without, by number.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self._open.append((tag, found.get("id") or str(len(self.scripts))))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> ends nothing"
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> ends <{opened}>"

    def handle_data(self, data: str) -> None:
        tag, name = self._open[-1] if self._open else ("", "")
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        elif tag != "style":
            self.text += data

    def data(self, name: str) -> Any:
        """Return the data in a script."""
        return json.loads(self.scripts[name])

    @property
    def loads(self) -> list[str]:
        """What attributes name that a browser would load."""
        names = ("src", "href", "srcset", "data", "action", "poster")
        return [value for _, found in self.tags for name in names if (value := found.get(name))]
