"""Passes of a layer and phases of a training step, with words for people."""

PASSES: dict[str, str] = {
    "F": "forward",
    "B": "input gradients",
    "W": "weight gradients",
}
"""Passes of a layer, with words for people."""

PHASES = {
    "forward": "forward alone",
    "bubble": "bubble",
    "backward": "backward alone",
    "weight": "weight gradients alone",
    "forward_backward": "forward and backward overlapped",
    "optimizer": "optimizer",
}
"""Where the time of a rank goes, with words for people; Table 4 of ISCA'25 (arXiv 2505.09343) calls
them 1F, bubble, 1B, 1W, 1F1B, opt."""

IDLE, END = "bubble", "optimizer"
"""Phases that no step is in: nothing to do, and what follows the last step."""
