"""Documents become frozen specs; every number keeps the source it came from.

A preset is a TOML file named after itself. Four conventions make it a document with provenance:

    base = "h800"                             start from that preset, list only what differs
    [sources]  hbm_bytes_per_s = "datasheet"  where a value, or all below a path, comes from
    [assumed]  tdp_w = "same board as H100"   a guess, and why
    rate = { value = 0.7, p10 = 0.6, p90 = 0.8, source = "..." }   a value with a distribution

A citation covers what is below its path and has none of its own; a value stated anew loses the
source it inherited. A field whose type is a spec with a catalogue of its own (`node.chip`) may
hold a preset's name, and overrides descend through such names.

Three steps: `Catalogue.document` reads and expands, `override` changes single values, `build`
validates once and says what is wrong in one line.
"""

import inspect
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hwmodels.document import Document, Source, covers
from hwmodels.errors import (
    SpecError,
    UnitError,
    UnknownPresetError,
    found_at,
    listed,
    shown,
    suggestion,
)
from hwmodels.plain import DEPTH_MAX, check_plain
from hwmodels.refusal import refusal
from hwmodels.units import read_alike

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """Base of all that describes hardware, work or an experiment: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    catalogue: ClassVar["Catalogue[Any] | None"] = None


class Kinded(Spec):
    """A spec of several kinds, chosen by its `kind` key; a subclass registers itself.

    A direct subclass is an open family (`FabricSpec`); its own subclasses give `kind` a default,
    unless they are abstract and only shared by several kinds.
    """

    kind: str = ""
    kinds: ClassVar[dict[str, type["Kinded"]]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if Kinded in cls.__bases__:
            cls.kinds = {}
            return
        if inspect.isabstract(cls):
            return
        kind = cls.model_fields["kind"].default
        if not kind or kind in cls.kinds:
            taken = cls.kinds.get(kind)
            raise TypeError(f"{cls.__name__}: kind {kind!r} is missing or taken by {taken}")
        cls.kinds[kind] = cls

    @classmethod
    def of_kind(cls, values: Any) -> Self:
        """Validate `values` as the subclass its `kind` names.

        Raises:
            SpecError: no such kind.
        """
        if isinstance(values, cls):
            return values
        kind = str(values.get("kind", "")) if isinstance(values, Mapping) else ""
        if kind not in cls.kinds:
            raise SpecError(f"kind {kind!r}: unknown{suggestion(kind, cls.kinds)}")
        found = cls.kinds[kind].model_validate(values)
        assert isinstance(found, cls), "the registry of a family holds its own subclasses"
        return found


class Catalogue(Generic[S]):
    """All presets of one kind: the TOML files of one folder, named by their stem."""

    def __init__(self, kind: str, folder: Path, spec: type[S]) -> None:
        self.kind, self.folder, self.spec = kind, folder, spec
        spec.catalogue = self

    def names(self) -> tuple[str, ...]:
        """Sorted names of all presets."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.toml")))

    def document(self, name: str) -> Document:
        """Return preset `name` with its base merged in and nested preset names expanded.

        Wherever a preset's name may stand, a `.toml` file may, from the folder one is in.

        Raises:
            UnknownPresetError: no such preset.
            SpecError: the file is not TOML, or breaks the conventions.
        """
        if str(name).endswith(".toml"):
            return read_document(self.spec, Path(name))
        if name not in self.names():
            raise UnknownPresetError(self.kind, str(name), self.names())
        document = read_document(self.spec, self.folder / f"{name}.toml")
        document.given.clear()
        document.stated.clear()
        return document

    def load(self, name: str) -> S:
        """Return preset `name` as a validated spec."""
        return build(self.spec, self.document(name), name)


def read_document(spec: type[Spec], path: Path) -> Document:
    """Read a TOML file written for `spec`; see the module docstring for its conventions.

    Raises:
        SpecError: the file cannot be read or parsed, or breaks the conventions.
    """
    try:
        raw = read_toml(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise SpecError(f"{path}: expected a TOML file, got {found_at(path)}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: expected a TOML file, got bytes that are not UTF-8") from None
    except SpecError as error:
        raise SpecError(f"{path}: not TOML: {error}") from None
    except ValueError as error:  # a null byte, half a character
        raise SpecError(f"{path}: must be the name of a file, got {error}") from None
    try:
        document = expand(spec, raw)
    except SpecError as error:
        raise SpecError(f"{path.stem}: {error}") from None
    except RecursionError:
        raise SpecError(f"{path}: must not be built on itself, got a circle of bases") from None
    if "name" in spec.model_fields and "name" not in raw:
        document.values["name"] = path.stem
    return document


def read_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        SpecError: it is none, is nested too deeply, or has an integer of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise SpecError(str(error).partition(";")[0]) from None


def expand(spec: type[Spec], raw: Mapping[str, Any]) -> Document:
    """Turn a raw mapping into a document: base merged, preset names and valued tables unfolded.

    Raises:
        SpecError: a convention is broken.
        UnknownPresetError: a base or a nested name is no preset.
    """
    check_plain(raw)
    values = dict(raw)
    document = Document()
    base = values.pop("base", None)
    if base is not None:
        if spec.catalogue is None:
            raise SpecError(f"base = {base!r}: {spec.__name__} has no presets to start from")
        document = spec.catalogue.document(base)
    cited = _citations(values)
    # A preset's values are not one's own; those of a file that this one is based on are.
    inherited = document.stated if str(base).endswith(".toml") else set()
    document.stated = inherited | {path for path, _ in leaves(values)}
    _merge(document, spec, values, prefix="")
    every = [path for path, _ in leaves(document.values)]
    for path in cited:
        if not any(covers(path, leaf) for leaf in every):
            raise SpecError(f"{path}: has a source but no value{suggestion(path, every)}")
    document.sources |= {path: _recited(document, path, source) for path, source in cited.items()}
    # Spread to the leaves, so that a value restated by an heir does not keep its table's source.
    document.sources = {leaf: s for leaf in every if (s := document.source_of(leaf))}
    document.given.add("")
    return document


def override(document: Document, spec: type[Spec], path: str, value: Any, origin: str) -> None:
    """Set one value in place: `override(doc, ClusterSpec, "node.chip", "h20", "--set ...")`.

    A mapping replaces the table at `path`, a preset's name stands for the preset, and `none`
    takes away what may be left out. The source
    becomes `origin`, with the one it replaces in brackets.

    Raises:
        SpecError: the path leads nowhere in `spec`.
        UnknownPresetError: the value names no preset of that kind.
    """
    *parents, last = path.split(".")
    if len(parents) >= DEPTH_MAX:
        raise SpecError(f"{path}: must have at most {DEPTH_MAX} keys, got {len(parents) + 1}")
    check_plain(value, path)
    document.given.add(path)
    document.stated.add(path)
    value = None if value == "none" else value
    owner: type[Spec] | None = spec
    target: Any = document.values
    for depth, key in enumerate(parents, start=1):
        _check_key(owner, key, path)
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            raise SpecError(f"{path}: {'.'.join(parents[:depth])} is a single value, not a table")
        owner = _resolve(field_spec(owner, key), target)
    _check_key(owner, last, path)
    if isinstance(value, Mapping):
        target.pop(last, None)
    replaced = document.sources.get(path)
    document.forget(path)
    _merge(document, owner, {last: value}, prefix=path.removesuffix(last))
    if path not in document.sources:
        known = replaced is not None and replaced.text != origin
        text = f"{origin} (was: {replaced.text})" if replaced and known else origin
        document.sources[path] = Source(text=text)


def build(spec: type[S], document: Document, name: str = "") -> S:
    """Validate a document as `spec`.

    Raises:
        SpecError: the first thing wrong, as `name: path: reason, got value`.
    """
    return validate(spec, document.values, name)


def validate(spec: type[M], values: Any, name: str = "") -> M:
    """Validate plain values as `spec`, turning pydantic's report into one line.

    Raises:
        SpecError: the first thing wrong, as `name: path: reason, got value`.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        line = refusal(error, name, lambda path: _keys_at(spec, values, path))
        raise SpecError(line) from None


def field_spec(spec: type[BaseModel] | None, key: str) -> type[Spec] | None:
    """Return the spec class of field `key` (through Optional and Annotated), or None."""
    if spec is None or key not in spec.model_fields:
        return None
    return next(_specs_in(spec.model_fields[key].annotation), None)


def _may_be_left_out(spec: type[BaseModel] | None, key: str) -> bool:
    """Return whether field `key` may be without a value."""
    if spec is None or key not in spec.model_fields:
        return False
    return type(None) in typing.get_args(spec.model_fields[key].annotation)


def _specs_in(annotation: Any) -> Iterator[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _specs_in(argument)


def _resolve(spec: type[Spec] | None, values: Any) -> type[Spec] | None:
    """Return the member of a family that `values` names; any other spec stays itself."""
    if spec is not None and issubclass(spec, Kinded) and isinstance(values, Mapping):
        return spec.kinds.get(str(values.get("kind")), spec)
    return spec


def _merge(
    document: Document, spec: type[Spec] | None, raw: Mapping[str, Any], prefix: str
) -> None:
    """Merge `raw`, written for `spec`, into `document` at `prefix` (empty, or ending in a dot)."""
    target = document.values
    for key in prefix.split(".")[:-1]:
        target = target.setdefault(key, {})
    for key, given in raw.items():
        value: Any = None if given == "none" and _may_be_left_out(spec, key) else given
        path, nested, old = f"{prefix}{key}", field_spec(spec, key), target.get(key)
        is_table = isinstance(value, Mapping)
        named = isinstance(value, str) or (is_table and "base" in value)
        if is_table and "value" in value:
            target[key] = value["value"]
            document.forget(path)
            document.sources[path] = _valued_source(path, value)
        elif named and nested is not None and nested.catalogue is not None:
            branch = expand(nested, value if is_table else {"base": value})
            if is_table and len(value) > 1 and "name" in nested.model_fields.keys() - value.keys():
                # What is built on another is not that: messages must not call it so.
                base = Path(str(value["base"])).name.removesuffix(".toml")
                branch.values["name"] = f"{base}, changed"
            target[key] = branch.values
            document.forget(path)
            document.sources |= {f"{path}.{sub}": s for sub, s in branch.sources.items()}
        elif is_table:
            if not isinstance(old, dict) or _changes_kind(nested, old, value):
                target[key] = {}
                document.forget(path)
            _merge(document, _resolve(nested, target[key] | value), value, prefix=f"{path}.")
        else:
            target[key] = value
            document.forget(path)


def _changes_kind(spec: type[Spec] | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether `new` names another member of a family: nothing of `old` then applies."""
    is_family = spec is not None and issubclass(spec, Kinded)
    return is_family and new.get("kind", old.get("kind")) != old.get("kind")


def _valued_source(path: str, table: Mapping[str, Any]) -> Source:
    """Return the source of an inline `{ value = ..., source | assumed = ... }` table."""
    unknown = set(table) - {"value", "source", "assumed", "p10", "p90"}
    if unknown or ("source" in table) == ("assumed" in table):
        raise SpecError(
            f"{path}: a table with 'value' takes one of 'source' and 'assumed', and 'p10', 'p90'; "
            f"got {listed(sorted(table))}"
        )
    text = table.get("source", table.get("assumed"))
    if ("p10" in table) != ("p90" in table):
        raise SpecError(f"{path}: 'p10' and 'p90' come together; got {listed(sorted(table))}")
    if "p10" not in table:
        return _source(path, {"text": text, "assumed": "assumed" in table})
    try:
        value, p10, p90 = read_alike(table[key] for key in ("value", "p10", "p90"))
    except UnitError as error:
        raise UnitError(f"{path}: {error}") from None
    if not p10 <= value <= p90:
        raise SpecError(f"{path}: must have p10 <= value <= p90, got {p10:g}, {value:g}, {p90:g}")
    return _source(path, {"text": text, "assumed": "assumed" in table, "p10": p10, "p90": p90})


def _citations(values: dict[str, Any]) -> dict[str, Source]:
    """Take the `[sources]` and `[assumed]` tables out of `values`."""
    cited: dict[str, Source] = {}
    for table in ("sources", "assumed"):
        notes = values.pop(table, {})
        if not isinstance(notes, Mapping):
            raise SpecError(f"{table}: must be a table of path = 'text', got {shown(notes)}")
        for path, text in leaves(notes):
            if path in cited:
                raise SpecError(f"{path}: is in [sources] and in [assumed]; allowed is one")
            cited[path] = _source(path, {"text": text, "assumed": table == "assumed"})
    return cited


def _recited(document: Document, path: str, source: Source) -> Source:
    """Return a new citation of a value; the distribution it has stays."""
    old = document.sources.get(path, source)
    return source.model_copy(update={"p10": old.p10, "p90": old.p90})


def _source(path: str, values: Mapping[str, Any]) -> Source:
    return validate(Source, values, f"source of {path}")


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of all that is not a table."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_key(owner: type[Spec] | None, key: str, path: str) -> None:
    """Refuse a key the owner cannot have; open tables have no owner and are left to `build`."""
    if owner is not None and key not in owner.model_fields:
        near = suggestion(key, owner.model_fields)
        raise SpecError(f"{path}: unknown key {shown(key)}{near}")


def _keys_at(spec: type[BaseModel], values: Any, path: Sequence[str]) -> tuple[str, ...]:
    """Return the keys allowed at `path` of `values`, none where that is not a spec."""
    current: type[BaseModel] | None = spec
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
        current = _resolve(field_spec(current, key), values)
    return tuple(current.model_fields) if current else ()
