"""The tapes of one layer: training forward, training backward, decoding."""

from collections.abc import Mapping

import torch

from calibration.stack import attention, decode, experts
from calibration.stack.dimensions import Dimensions
from calibration.stack.names import BACKWARD, DECODE, FORWARD
from calibration.stack.recorder import Recorder
from calibration.stack.tape import Tape


def training(d: Dimensions, device: torch.device) -> Mapping[str, Tape]:
    """Return the forward tape of a layer, and the backward one, which follows it."""
    r = Recorder(device)
    r.give_normal("x", d.tokens, d.hidden)
    r.give_normal("residual", d.tokens, d.hidden)
    attention.give(r, d)
    experts.give_weights(r, d)
    experts.give_arrived(r, d)
    attention.forward(r, d)
    experts.forward(r, d)
    forward = r.tape()
    r = Recorder(device, forward)
    experts.give_gradients(r, d)
    experts.backward(r, d)
    attention.backward(r, d)
    return {FORWARD: forward, BACKWARD: r.tape()}


def decoding(d: Dimensions, device: torch.device) -> Mapping[str, Tape]:
    """Return the tape of one pass of decoding."""
    r = Recorder(device)
    decode.record(r, d)
    return {DECODE: r.tape()}


def bytes_of(*tapes: Tape) -> int:
    """Return what the buffers of tapes take together; shared ones count once."""
    held = {id(buffer): buffer for tape in tapes for buffer in tape.buffers.values()}
    return sum(buffer.numel() * buffer.element_size() for buffer in held.values())
