"""Names of tapes and of what is made of them, for those who play and those who judge.

Nothing here needs PyTorch.
"""

FORWARD, BACKWARD, DECODE = "train_forward", "train_backward", "decode"
LAYERS = (FORWARD, BACKWARD, DECODE)
"""Tapes of one layer."""

STACKS = {"train_stack": (FORWARD, BACKWARD), "decode_stack": (DECODE,)}
"""Tapes that are played behind each other, each `DEPTH` times before the next."""

DEPTH = 4
"""Layers of a stack: the host may run ahead of the device from one into the next."""
