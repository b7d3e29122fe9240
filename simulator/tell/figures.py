"""Figures of a training step: pipeline Gantt, overlap inside a pair, breakdown by rank.

Colours mean one thing everywhere: blue work of the forward pass, orange of the input gradients,
green of the weight gradients, violet overlapped pairs, grey communication, hatched grey waiting,
white idle.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

from simulator.lower.parts import ChunkPlay
from simulator.lower.pipeline import COMPUTE as PIPELINE_COMPUTE
from simulator.lower.played import Played
from simulator.tell.metrics import PHASE_NAMES
from simulator.tell.style import STYLE
from workloads.chunks import COMPUTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORWARD, BACKWARD, WEIGHT, PAIR = "#3b75af", "#e1812c", "#3a923a", "#8d6bb8"
COMMUNICATION, WAITING, OPTIMIZER, IDLE = "#8a8f98", "#d9dce1", "#1f2430", "#ffffff"
STEP_COLORS = {"F": FORWARD, "B": BACKWARD, "Bi": BACKWARD, "W": WEIGHT, "FB": PAIR}
STEP_NAMES = {
    FORWARD: PHASE_NAMES["forward"],
    BACKWARD: PHASE_NAMES["backward"],
    WEIGHT: PHASE_NAMES["weight"],
    PAIR: PHASE_NAMES["forward_backward"],
    OPTIMIZER: PHASE_NAMES["optimizer"],
}
PHASE_COLORS = {
    "forward_backward": PAIR,
    "forward": FORWARD,
    "backward": BACKWARD,
    "weight": WEIGHT,
    "optimizer": OPTIMIZER,
    "bubble": IDLE,
}


def draw_all(played: Played, folder: Path) -> list[Path]:
    """Write every figure of a run to `folder` as PNG and return the files."""
    figures: dict[str, Callable[[Played], Figure | None]] = {
        "pipeline": pipeline_gantt,
        "overlap": pair_overlap,
        "breakdown": breakdown,
    }
    files = []
    with mpl.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw(played)
            if figure is None:  # a folder written before may hold one that no longer holds
                (folder / f"{name}.png").unlink(missing_ok=True)
                continue
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1])
            plt.close(figure)
    return files


def pipeline_gantt(played: Played) -> "Figure":
    """Draw what every pipeline rank does when."""
    ranks = len(played.pipeline.program)
    figure, axes = plt.subplots(figsize=(13, 0.32 * ranks + 1.6), layout="constrained")
    timeline = played.timeline()
    for (rank, color), spans in _spans_by_color(played).items():
        axes.broken_barh(spans, (rank - 0.4, 0.8), color=color, linewidth=0)
    axes.set_xlim(0, timeline.makespan_s)
    axes.set_ylim(ranks - 0.4, -0.6)
    axes.set_yticks(range(ranks))
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel("seconds")
    bubble = played.times.phases["bubble"].mean() / played.times.step_s
    axes.set_title(
        f"{played.experiment.name}: one step, {timeline.makespan_s:.2f} s, "
        f"{bubble:.1%} of it idle (white) on the mean rank"
    )
    drawn = {color for _, color in _spans_by_color(played)}
    used = [color for color in STEP_NAMES if color in drawn]
    figure.legend(
        handles=[Patch(color=c, label=STEP_NAMES[c]) for c in used],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(used),
    )
    return figure


def _spans_by_color(played: Played) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """Start and length of everything on the compute streams, by rank and color."""
    graph, timeline = played.pipeline.graph, played.timeline()
    spans: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for task, (rank, index) in enumerate(
        zip(played.pipeline.rank, played.pipeline.step, strict=True)
    ):
        if graph.streams[graph.stream[task]].endswith(PIPELINE_COMPUTE):
            kind = played.pipeline.program[rank][index].kind if index >= 0 else None
            color = STEP_COLORS[kind] if kind else OPTIMIZER
            start_s, end_s = float(timeline.start_s[task]), float(timeline.end_s[task])
            spans.setdefault((rank, color), []).append((start_s, end_s - start_s))
    return spans


def pair_overlap(played: Played) -> "Figure | None":
    """Draw compute over communication inside the pair that runs most often; None without pairs."""
    times = dict(zip(played.blueprint.keys, played.blueprint.steps_by_key.tolist(), strict=True))
    pairs = [key for key in times if key[0] == "FB"]
    if not pairs:
        return None
    key = max(pairs, key=lambda pair: (times[pair], pair))
    chunk = played.chunks[key]
    figure, axes = plt.subplots(figsize=(15, 2.4), layout="constrained")
    _draw_streams(axes, chunk)
    axes.set_title(
        f"forward of stage {key[1]} overlapped with backward of stage {key[2]}: "
        f"rank 0 of {chunk.ranks}{' alike' if played.explicit else ''}; "
        f"the slowest ends at {chunk.duration_s[0] * 1e3:.1f} ms"
        f"{', if nothing else were on its NIC' if played.shared else ''}"
    )
    handles = [
        Patch(color=FORWARD, label="forward"),
        Patch(color=BACKWARD, label="input gradients"),
        Patch(color=WEIGHT, label="weight gradients"),
        Patch(color=COMMUNICATION, label="dispatch, combine"),
        Patch(facecolor=WAITING, hatch="///", edgecolor="white", label="waiting for other ranks"),
    ]
    figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=5)
    return figure


def _draw_streams(axes: "Axes", chunk: ChunkPlay) -> None:
    timeline, until_ms = chunk.timeline(draw=0), float(chunk.duration_s[0]) * 1e3
    graph = timeline.graph
    for task in range(len(graph)):
        on_compute = graph.streams[graph.stream[task]].endswith(COMPUTE)
        label = graph.labels[graph.label[task]]
        row = 0 if on_compute else 1
        ready, start, end = (
            float(column[task]) * 1e3
            for column in (timeline.ready_s, timeline.start_s, timeline.end_s)
        )
        if start > ready:
            axes.broken_barh(
                [(ready, start - ready)],
                (row - 0.4, 0.8),
                facecolor=WAITING,
                hatch="///",
                edgecolor="white",
            )
        color = _segment_color(label) if on_compute else COMMUNICATION
        axes.broken_barh([(start, end - start)], (row - 0.4, 0.8), color=color, edgecolor="white")
        name = label.partition(" ")[0].replace("(", "\n(")
        if end - start > 0.0037 * name.index("\n") * until_ms:
            axes.text((start + end) / 2, row, name, ha="center", va="center", color="w", fontsize=6)
    axes.set_xlim(0, until_ms)
    axes.set_ylim(1.6, -0.6)
    axes.set_yticks([0, 1], ["compute", "communication"])
    axes.set_xlabel("milliseconds")


def _segment_color(label: str) -> str:
    phase = label.partition(" ")[0][-2]
    return {"F": FORWARD, "B": BACKWARD, "W": WEIGHT}[phase]


def breakdown(played: Played) -> "Figure":
    """Draw where each pipeline rank's time goes."""
    ranks = len(played.pipeline.program)
    figure, axes = plt.subplots(figsize=(9, 0.28 * ranks + 1.6))
    left = 0.0 * played.times.phases["bubble"]
    for name, color in PHASE_COLORS.items():
        seconds = played.times.phases[name]
        if not seconds.any():
            continue
        label = f"{PHASE_NAMES[name]}: {seconds.mean():.2f} s"
        edge = WAITING if color == IDLE else color
        axes.barh(
            range(ranks), seconds, left=left, color=color, label=label, height=0.8, edgecolor=edge
        )
        left = left + seconds
    axes.set_ylim(ranks - 0.4, -0.6)
    axes.set_yticks(range(ranks))
    axes.set_xlim(0, played.times.step_s)
    axes.set_ylabel("pipeline rank")
    axes.set_xlabel("seconds")
    axes.set_title(
        f"{played.experiment.name}: where {played.times.step_s:.2f} s go (rank means in the legend)"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
