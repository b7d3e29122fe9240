"""The error tree: exit codes, and messages that help."""

import pytest

from hwmodels import errors
from hwmodels.errors import MoesimError, SpecError, UnknownPresetError, suggestion

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
    defined = {n for n, e in vars(errors).items() if isinstance(e, type)} - {"Iterable"}
    assert all(name in (errors.__doc__ or "") for name in defined)


def test_input_errors_are_value_errors_so_that_validators_may_raise_them() -> None:
    assert issubclass(SpecError, ValueError)


def test_an_unknown_preset_names_the_nearest() -> None:
    error = UnknownPresetError("chip", "h8000", ["h800", "a100"])
    assert str(error) == "chip 'h8000': unknown preset; did you mean 'h800'?"
    assert error.known == ("a100", "h800")


def test_a_word_far_from_all_gets_the_list() -> None:
    assert suggestion("zzz", ["b", "a"]) == "; known: a, b"
    assert suggestion("zzz", []) == ""
