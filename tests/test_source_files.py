"""Every source file: how long it and its functions may be, and how it may fail."""

import ast
from collections.abc import Iterator

from tests.sources import CHECKOUT, SOURCES, Source, parse, report

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def long_functions(source: Source) -> Iterator[str]:
    for function in functions(source):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{source.where(function.lineno)} {function.name}: {lines} lines"


def silent_asserts(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assert) and node.msg is None:
            yield f"{source.where(node.lineno)} {ast.unparse(node)}"


def test_files_have_one_noun_in_them() -> None:
    breaches = [
        f"{source.where(1)} {source.lines} lines, at most {FILE_LINES_MAX}"
        for source in SOURCES
        if source.lines > FILE_LINES_MAX
    ]
    assert not breaches, report(breaches)


def test_functions_fit_on_a_page() -> None:
    breaches = [
        f"{breach}, at most {FUNCTION_LINES_MAX}"
        for source in SOURCES
        for breach in long_functions(source)
    ]
    assert not breaches, report(breaches)


def test_assertions_say_what_cannot_happen() -> None:
    """Input is refused with an error of ours; what is left for `assert` needs its reason."""
    breaches = [breach for source in SOURCES for breach in silent_asserts(source)]
    assert not breaches, report(breaches)


def test_a_long_function_and_a_silent_assertion_are_seen() -> None:
    """A page is 60 lines from `def` to the last; the 61st is too many."""
    body = "    x = 1\n" * 59
    source = parse(CHECKOUT / "hwmodels/x.py", f"def f():\n{body}\ndef g():\n{body}    y = 1\n")
    assert [line.split()[1] for line in long_functions(source)] == ["g:"]
    source = parse(CHECKOUT / "hwmodels/x.py", "assert x\nassert x, 'because'\n")
    assert list(silent_asserts(source)) == ["hwmodels/x.py:1 assert x"]
