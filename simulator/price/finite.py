"""Seconds that are none: refused where they arise, with what they were to price."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hwmodels.errors import InfeasibleError


def check_finite(values: npt.ArrayLike, name: Callable[[int], str]) -> None:
    """Refuse numbers that are infinite or not a number, which inputs within bounds do not give.

    Args:
        values: (things, ...) numbers.
        name: of a thing, given its place, for people.

    Raises:
        InfeasibleError: names the first that has one.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    place = tuple(np.argwhere(~finite)[0])
    raise InfeasibleError(
        f"{name(int(place[0]))}: must be finite, got {np.asarray(values)[place]}; "
        f"an input of it is far from any machine's"
    )
