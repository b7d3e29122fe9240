"""Steps of a tape that nobody measures."""

from typing import Any

from calibration.stack.tape import Step


def adding(op: str, reads: tuple[str, ...], writes: tuple[str, ...], **changes: Any) -> Step:
    """Return a step that adds one to what it reads first."""
    plain = {
        "where": "attn(F)",
        "kernel": "torch.add",
        "shape": {"m": 1},
        "run": lambda r, w: w[0].copy_(r[0] + 1),
    }
    return Step(op=op, reads=reads, writes=writes, **plain | changes)
