"""The error tree: exit codes, and messages that help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels import errors
from hwmodels.errors import (
    MESSAGE_CHARACTERS,
    MoesimError,
    SpecError,
    UnknownPresetError,
    listed,
    shown,
    suggestion,
)

EXIT_CODES = {
    "InputError": 2,
    "SpecError": 2,
    "UnitError": 2,
    "UnknownPresetError": 2,
    "InfeasibleError": 2,
    "CalibrationError": 2,
    "OutOfRangeError": 2,
    "MachineError": 3,
    "DeadlockError": 1,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_every_error_has_the_exit_code_of_its_branch(name: str, code: int) -> None:
    error = getattr(errors, name)
    assert issubclass(error, MoesimError)
    assert error.exit_code == code


def test_the_module_docstring_draws_every_error() -> None:
    classes = [e for e in vars(errors).values() if isinstance(e, type)]
    defined = [e.__name__ for e in classes if issubclass(e, MoesimError)]
    assert defined
    assert [name for name in defined if name not in (errors.__doc__ or "")] == []


def test_input_errors_are_value_errors_so_that_validators_may_raise_them() -> None:
    assert issubclass(SpecError, ValueError)


def test_an_unknown_preset_names_the_nearest() -> None:
    error = UnknownPresetError("chip", "h8000", ["h800", "a100"])
    assert str(error) == "chip 'h8000': unknown preset; did you mean 'h800'?"
    assert error.known == ("a100", "h800")


def test_a_word_far_from_all_gets_the_list() -> None:
    assert suggestion("zzz", ["b", "a"]) == "; known: a, b"
    assert suggestion("zzz", []) == ""


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\0", "\u2028", "\ud800"])
def test_a_message_holds_on_one_line(character: str) -> None:
    message = str(SpecError(f"a{character}b: unknown key"))
    assert message.isprintable()
    assert message.startswith("a\\")
    assert message.endswith("b: unknown key")


@given(st.text(), st.integers(0, 2000))
def test_a_message_is_short_and_keeps_its_ends(text: str, times: int) -> None:
    message = str(SpecError(f"where: {text * times}; allowed is 3"))
    assert message.isprintable()
    assert len(message) <= MESSAGE_CHARACTERS < 290
    assert message.startswith("where: ")
    assert message.endswith("; allowed is 3")


def test_a_short_message_is_left_as_it_is() -> None:
    text = "plan.ep: must divide 256, got 'µ…'"
    assert str(SpecError(text)) == text
    assert errors.one_line("x" * MESSAGE_CHARACTERS) == "x" * MESSAGE_CHARACTERS


def test_a_value_is_shown_whatever_it_is() -> None:
    nested: list[object] = []
    for _ in range(10**5):
        nested = [nested]
    assert shown(nested) == "list nested too deeply"
    while nested:
        nested = nested.pop()  # type: ignore[assignment]
    assert shown(10**5000) == "int of too many digits"
    assert shown("x" * 1000) == "'" + "x" * 50 + "..." + "x" * 25 + "'"
    assert shown({"a": 1}) == "{'a': 1}"


def test_a_long_list_of_names_says_how_many_more_there_are() -> None:
    names = [f"name-{number}" for number in range(100)]
    text = listed(names)
    assert text.startswith("name-0, name-1, ")
    shown_names, _, rest = text.partition(" and ")
    assert len(shown_names) <= errors.LISTED_CHARACTERS
    assert rest == f"{100 - len(shown_names.split(', '))} more"
    assert listed(["a", "b"]) == "a, b"


def test_no_word_is_near_to_one_of_a_million_characters() -> None:
    assert suggestion("a" * 10**6, ["a", "b"]) == "; known: a, b"
