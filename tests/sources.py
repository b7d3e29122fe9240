"""The sources of the five packages, parsed: what rules about them are checked on."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("hwmodels", "workloads", "simulator", "kernels", "calibration")


@dataclass(frozen=True)
class Source:
    """One parsed module; `where` turns a line into something to click on."""

    module: str
    path: Path
    tree: ast.Module
    lines: int

    def where(self, line: int) -> str:
        return f"{self.path.relative_to(CHECKOUT).as_posix()}:{line}"


@dataclass(frozen=True)
class Import:
    """`target` is the full name of a module, or of a name in one."""

    source: Source
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source.where(self.line)} imports {self.target}"


def parse(path: Path, text: str) -> Source:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Source(module, path, ast.parse(text, str(path)), text.count("\n"))


def imports(source: Source) -> Iterator[Import]:
    """All imports, the lazy ones and those for type checking included.

    `from package import name` counts as `package.name` whether that is a module or not, so that
    no module slips in as a name of its package.
    """
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(source, alias.name, node.lineno)
            case ast.ImportFrom(module=name, names=names, level=level):
                base = absolute(source, name, level)
                for alias in names:
                    yield Import(source, f"{base}.{alias.name}", node.lineno)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield Import(source, name, node.lineno)


def absolute(source: Source, name: str | None, level: int) -> str:
    if level == 0:
        return name or ""
    package = source.module.split(".")
    drop = level - (source.path.name == "__init__.py")
    return ".".join([*package[: len(package) - drop], *([name] if name else [])])


SOURCES = [
    parse(path, path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((CHECKOUT / package).rglob("*.py"))
]


def report(breaches: list[str]) -> str:
    return "\n".join(["", *breaches])
