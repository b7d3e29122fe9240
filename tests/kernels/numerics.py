"""A comparison that fails with what is wrong."""

from torch import Tensor

from calibration.measure.numerics import closeness


def assert_close(out: Tensor, want: Tensor, format_: str, what: str = "output") -> None:
    """Fail unless shapes agree, `out` is finite and its error is within the format's bound."""
    found = closeness(out, want, format_, what)
    assert found.ok, f"{what}: relative error {found.error:.2e} over {found.bound:.0e} {found.note}"
