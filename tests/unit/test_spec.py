"""Documents: base, provenance, preset names, overrides, and one-line messages."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.document import Document, Source
from hwmodels.errors import SpecError, UnitError, UnknownPresetError
from hwmodels.spec import (
    Catalogue,
    Kinded,
    Spec,
    build,
    expand,
    field_spec,
    override,
    read_document,
)
from hwmodels.units import Bytes, BytesPerSecond


class Memory(Spec):
    capacity_bytes: Bytes
    bytes_per_s: BytesPerSecond


class Engine(Spec):
    name: str
    memory: Memory
    cores: int = 1


class Shape(Kinded):
    width: int


class Box(Shape):
    kind: str = "box"
    height: int


class Ball(Shape):
    kind: str = "ball"


class Machine(Spec):
    name: str = "m"
    engine: Engine | None = None
    rates: dict[str, float] | None = None


ENGINE = """
[memory]
capacity_bytes = "80 GB"
bytes_per_s = "2 TB/s"

[sources]
memory = "datasheet"
"""


@pytest.fixture
def presets(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "one.toml").write_text(ENGINE)
    Catalogue("engine", tmp_path, Engine)
    yield tmp_path
    Engine.catalogue = None


def engine(presets: Path, text: str, name: str = "two") -> Document:
    (presets / f"{name}.toml").write_text(text)
    assert Engine.catalogue is not None
    return Engine.catalogue.document(name)


class TestBase:
    def test_an_heir_lists_only_what_differs(self, presets: Path) -> None:
        document = engine(presets, 'base = "one"\nmemory.capacity_bytes = "96 GB"')
        two = build(Engine, document)
        assert two.name == "two"
        assert two.memory == Memory(capacity_bytes=96e9, bytes_per_s=2e12)

    def test_a_restated_value_loses_the_source_it_inherited(self, presets: Path) -> None:
        document = engine(presets, 'base = "one"\nmemory.capacity_bytes = "96 GB"')
        assert document.source_of("memory.capacity_bytes") is None
        assert document.source_of("memory.bytes_per_s") == Source(text="datasheet")

    def test_a_citation_covers_what_is_below_and_the_nearest_wins(self, presets: Path) -> None:
        document = engine(presets, ENGINE + '[assumed]\n"memory.capacity_bytes" = "a guess"\n')
        assert document.source_of("memory.capacity_bytes") == Source(text="a guess", assumed=True)
        assert document.source_of("memory.bytes_per_s") == Source(text="datasheet")

    def test_a_base_that_does_not_exist_names_the_nearest(self, presets: Path) -> None:
        with pytest.raises(UnknownPresetError, match="engine 'ones': unknown preset; did you mean"):
            engine(presets, 'base = "ones"')

    @pytest.mark.parametrize("base", ["3", '["one"]', "{}"])
    def test_a_base_that_is_no_name_is_refused(self, presets: Path, base: str) -> None:
        with pytest.raises(UnknownPresetError, match=r"^engine .*: unknown preset; "):
            engine(presets, f"base = {base}")

    def test_a_spec_without_presets_has_no_base(self) -> None:
        with pytest.raises(SpecError, match="base = 'x': Machine has no presets to start from"):
            expand(Machine, {"base": "x"})


class TestProvenance:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                'cores = 1\n[sources]\ncoers = "x"',
                "two: coers: has a source but no value; did you mean",
            ),
            ("sources = 3", "two: sources: must be a table of path = 'text', got 3"),
            ("[sources]\ncores = 3", "two: source of cores: text: input should be a valid string"),
            (
                'cores = 2\nsources.cores = "x"\nassumed.cores = "y"',
                "two: cores: is in [sources] and in [assumed]; allowed is one",
            ),
        ],
    )
    def test_a_broken_citation_is_refused(self, presets: Path, text: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            engine(presets, text)
        assert str(caught.value).startswith(message)

    def test_a_value_may_carry_a_distribution(self) -> None:
        value = {"value": "2 TB/s", "p10": "1.8 TB/s", "p90": "2.1 TB/s", "source": "measured"}
        document = expand(Engine, {"memory": {"bytes_per_s": value}})
        assert document.values == {"memory": {"bytes_per_s": "2 TB/s"}}
        assert document.source_of("memory.bytes_per_s") == Source(
            text="measured", p10=1.8e12, p90=2.1e12
        )

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ({"value": 1}, "cores: a table with 'value' takes one of 'source' and 'assumed'"),
            ({"value": 1, "source": "a", "assumed": "b"}, "cores: a table with 'value' takes one"),
            ({"value": 1, "source": "a", "p50": 1}, "cores: a table with 'value' takes one"),
            ({"value": 1, "source": "a", "p10": 1}, "cores: 'p10' and 'p90' come together"),
            (
                {"value": 1, "source": "a", "p10": 2, "p90": 3},
                "cores: must have p10 <= value <= p90, got 2, 1, 3",
            ),
        ],
    )
    def test_a_broken_valued_table_is_refused(self, table: Any, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            expand(Engine, {"cores": table})
        assert str(caught.value).startswith(message)

    def test_a_new_citation_of_a_value_keeps_its_distribution(self, presets: Path) -> None:
        value = {"value": 2, "p10": 1, "p90": 4, "source": "measured"}
        text = f"cores = {{ {', '.join(f'{k} = {v!r}' for k, v in value.items())} }}"
        engine(presets, ENGINE.replace("[memory]", f"{text}\n[memory]"), "wide")
        document = engine(presets, 'base = "wide"\n[sources]\ncores = "measured again"')
        assert document.source_of("cores") == Source(text="measured again", p10=1, p90=4)

    def test_a_distribution_in_another_dimension_is_refused_with_its_path(self) -> None:
        table = {"value": "2 TB/s", "p10": "1.8 THz", "p90": "2.1 TB/s", "source": "a"}
        with pytest.raises(UnitError) as caught:
            expand(Engine, {"memory": {"bytes_per_s": table}})
        assert str(caught.value) == (
            "memory.bytes_per_s: expected a unit of B/s as in '2 TB/s', got '1.8 THz'"
        )

    def test_a_distribution_in_an_unknown_unit_is_refused(self) -> None:
        table = {"value": 1, "p10": "0.5 parsec", "p90": 2, "source": "a"}
        with pytest.raises(UnitError, match=r"got '0\.5 parsec'"):
            expand(Engine, {"cores": table})


class TestNestedPresets:
    def test_a_name_stands_for_its_preset_with_its_sources(self, presets: Path) -> None:
        document = expand(Machine, {"engine": "one", "sources": {"engine": "the buyer"}})
        machine = build(Machine, document)
        assert machine.engine is not None
        assert machine.engine.name == "one"
        assert document.source_of("engine.memory.bytes_per_s") == Source(text="datasheet")
        assert document.source_of("engine.name") == Source(text="the buyer")

    def test_a_table_with_a_base_varies_a_preset(self, presets: Path) -> None:
        document = expand(Machine, {"engine": {"base": "one", "cores": 7}})
        machine = build(Machine, document)
        assert machine.engine is not None
        assert (machine.engine.cores, machine.engine.memory.bytes_per_s) == (7, 2e12)

    def test_another_name_replaces_values_and_sources(self, presets: Path) -> None:
        engine(presets, '[memory]\ncapacity_bytes = "1 GB"\nbytes_per_s = "1 GB/s"')
        document = expand(Machine, {"engine": "one"})
        override(document, Machine, "engine", "two", "--set")
        assert document.source_of("engine.memory.bytes_per_s") == Source(text="--set")


class TestOverride:
    @pytest.fixture
    def document(self, presets: Path) -> Document:
        return expand(Machine, {"engine": "one", "rates": {"a": 1.0}})

    def test_the_origin_is_noted_with_what_it_replaced(self, document: Document) -> None:
        override(document, Machine, "engine.memory.bytes_per_s", "3 TB/s", "--set")
        note = document.source_of("engine.memory.bytes_per_s")
        assert note == Source(text="--set (was: datasheet)")

    def test_a_key_left_out_can_be_set(self) -> None:
        document = Document()
        override(document, Machine, "engine.memory.bytes_per_s", 1, "--set")
        assert document.values == {"engine": {"memory": {"bytes_per_s": 1}}}

    def test_a_mapping_replaces_the_table_and_its_sources(self, document: Document) -> None:
        override(document, Machine, "engine.memory", {"bytes_per_s": 1}, "--set")
        assert document.values["engine"]["memory"] == {"bytes_per_s": 1}
        assert document.source_of("engine.memory.bytes_per_s") == Source(text="--set")

    def test_an_open_table_takes_any_key(self, document: Document) -> None:
        override(document, Machine, "rates.b", 2.0, "--set")
        assert build(Machine, document).rates == {"a": 1.0, "b": 2.0}

    @pytest.mark.parametrize("path", ["engin", "engine.memori", "engine.memory.x", "", ".", "a..b"])
    def test_a_path_to_nowhere_is_refused(self, document: Document, path: str) -> None:
        with pytest.raises(SpecError, match="unknown key"):
            override(document, Machine, path, 1, "--set")

    def test_a_path_through_a_value_is_refused(self, document: Document) -> None:
        override(document, Machine, "engine.cores", 4, "--set")
        with pytest.raises(SpecError, match=r"engine\.cores is a single value, not a table"):
            override(document, Machine, "engine.cores.x", 4, "--set")

    def test_an_unknown_preset_is_refused_before_anything_changes(self, document: Document) -> None:
        with pytest.raises(UnknownPresetError, match="engine 'on': unknown preset; did you mean"):
            override(document, Machine, "engine", "on", "--set")
        assert build(Machine, document).engine is not None

    @given(cores=st.integers(-(2**60), 2**60), memory=st.floats(1, 1e15))
    def test_what_is_set_is_what_is_built(self, cores: int, memory: float) -> None:
        document = Document({"name": "x", "memory": {"bytes_per_s": 1e9}})
        override(document, Engine, "cores", cores, "--set")
        override(document, Engine, "memory.capacity_bytes", memory, "--set")
        built = build(Engine, document)
        assert (built.cores, built.memory.capacity_bytes) == (cores, memory)
        assert Engine.model_validate(built.model_dump()) == built


class TestBuild:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"engine": {"name": "e"}}, "exp: engine.memory: missing"),
            ({"nme": 1}, "exp: nme: unknown key; did you mean 'name'?"),
            ({"name": 1}, "exp: name: input should be a valid string, got 1"),
            (
                {"engine": {"name": "e", "memory": {"bytes_per_second": 1}}},
                "exp: engine.memory.capacity_bytes: missing",
            ),
            ({"rates": {"a": "x" * 200}}, "exp: rates.a: input should be a valid number, unable"),
        ],
    )
    def test_a_wrong_document_is_refused_in_one_line(self, values: Any, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            build(Machine, Document(values), "exp")
        assert str(caught.value).startswith(message)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"a = ", "Invalid value"), (b"\xff", "not UTF-8"), (b"a = " + b"[" * 5000, "recursion")],
    )
    def test_a_file_that_is_not_toml_is_refused_with_its_path(
        self, tmp_path: Path, content: bytes, message: str
    ) -> None:
        path = tmp_path / "broken.toml"
        path.write_bytes(content)
        with pytest.raises(SpecError, match=rf"broken\.toml: .*{message}"):
            read_document(Machine, path)

    def test_a_file_that_is_not_there_is_refused_with_its_path(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="expected a TOML file, got nothing there"):
            read_document(Machine, tmp_path / "none.toml")

    def test_a_field_through_optional_has_its_spec(self) -> None:
        assert field_spec(Machine, "engine") is Engine
        assert field_spec(Machine, "rates") is None
        assert field_spec(None, "engine") is None


class TestKinded:
    def test_the_kind_chooses_the_subclass(self) -> None:
        assert Shape.of_kind({"kind": "box", "width": 1, "height": 2}) == Box(width=1, height=2)
        assert Shape.of_kind(Ball(width=3)) == Ball(width=3)

    @pytest.mark.parametrize("values", [{}, {"kind": "bx"}, {"kind": []}, 3, None])
    def test_no_such_kind_is_refused(self, values: Any) -> None:
        with pytest.raises(SpecError, match="unknown; "):
            Shape.of_kind(values)

    def test_a_kind_taken_or_missing_is_our_bug(self) -> None:
        with pytest.raises(TypeError, match=r"Twin: kind 'box' is missing or taken by .*Box"):
            type("Twin", (Box,), {"__module__": __name__})
        with pytest.raises(TypeError, match="Nameless: kind '' is missing"):
            type("Nameless", (Shape,), {"__module__": __name__})

    def test_what_kinds_only_share_needs_no_kind(self) -> None:
        class Flat(Shape, ABC):
            @abstractmethod
            def area(self) -> int:
                """Return how large it is."""

        assert Flat not in Shape.kinds.values()
