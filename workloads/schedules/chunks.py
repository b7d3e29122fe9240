"""Checks that schedules share: ranks, and model chunks a rank."""

from hwmodels.errors import InfeasibleError


def only(name: str, chunks: int, vpp: int | None) -> int:
    """Return `chunks`, the one number of model chunks a rank that schedule `name` can run.

    Raises:
        InfeasibleError: the plan asks for another.
    """
    if vpp not in (None, chunks):
        more = ", interleaved takes more" if chunks == 1 else ""
        raise InfeasibleError(f"plan.vpp: must be {chunks} for {name}{more}, got {vpp}")
    return chunks


def check_ranks(pp: int) -> None:
    """Refuse a pipeline without ranks."""
    if pp < 1:
        raise InfeasibleError(f"plan.pp: at least 1, got {pp}")


def rank_in(pp: int, rank: int) -> None:
    """Refuse a rank that is not there."""
    if not 0 <= rank < pp:
        raise InfeasibleError(f"rank: from 0 to pp - 1 = {pp - 1}, got {rank}")
