"""The picture of a cluster: one node, and each plane of its network from leaves to cores.

Cables between the same two switches are one line, the thicker the more they are. Given how busy
links were in a run, a line takes the colour of the busiest of its cables, in either direction. A
plane of many lines is drawn as a matrix, a row a leaf and a column a spine.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hwmodels.arrays import Floats, Ints, Mask
from hwmodels.cluster import ClusterSpec
from hwmodels.units import format_quantity
from simulator.tell.link_load import LinkLoad
from simulator.tell.link_matrix import LINES_MAX, draw_matrices
from simulator.tell.style import STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hwmodels.fabrics.topology import Topology


INK, LINE, BOX, GPU = "#1f2430", "#8a8f98", "#d9dce1", "#3b75af"
PLANES_A_ROW = 4
LABELLED_LEAVES = 16  # leaves of a plane; more stand too close for words
DRAWN_GPUS = 72  # of a node


def draw_cluster(cluster: ClusterSpec, file: Path, load: LinkLoad | None = None) -> None:
    """Write the picture of a cluster to `file`.

    Raises:
        InfeasibleError: its fabric is known by counts only.
    """
    topology = cluster.topology()
    planes = int(topology.switch_plane.max(initial=-1)) + 1
    dead = cluster.degraded_bytes_per_s() == 0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_size(planes))
        rows = max(1, -(-planes // PLANES_A_ROW))
        grid = figure.add_gridspec(rows, 1 + min(planes, PLANES_A_ROW), hspace=0.35, wspace=0.12)
        _draw_node(figure.add_subplot(grid[:, 0]), cluster, load)
        for plane in range(planes):
            place = grid[plane // PLANES_A_ROW, 1 + plane % PLANES_A_ROW]
            _draw_plane(figure.add_subplot(place), topology, plane, load, dead)
        figure.suptitle(_title(cluster, load), x=0.125, ha="left", color=INK)
        if load is not None:
            _draw_scale(figure)
        figure.savefig(file)


def _size(planes: int) -> tuple[float, float]:
    columns = 1 + min(planes, PLANES_A_ROW)
    rows = max(1, -(-planes // PLANES_A_ROW))
    return (4.0 + 6.5 if columns == 2 else 2.6 * columns + 1.0, 2.4 * rows + 1.6)


def _title(cluster: ClusterSpec, load: LinkLoad | None) -> str:
    counts = cluster.topology()
    rate = format_quantity(cluster.node.nic.link_bytes_per_s * 8, "b/s", 3)
    text = f"{cluster.name}: {cluster.gpus:,} GPUs, {cluster.fabric.kind}"
    if counts.switches:
        text += f", {counts.switches:,} switches, {counts.links:,} links between them, {rate} ports"
    return text if load is None else f"{text}\n{load.title}"


def _color(busy: float) -> tuple[float, ...]:
    """Return the colour of a link; the palest end of the map would not show on white."""
    return tuple(mpl.colormaps["YlOrRd"](0.15 + 0.85 * min(1.0, busy)))


def _colors() -> ListedColormap:
    return ListedColormap([_color(busy) for busy in np.linspace(0, 1, 64)])


def _draw_scale(figure: Figure) -> None:
    scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100), _colors())
    bar = figure.colorbar(scale, ax=figure.axes, fraction=0.015, pad=0.02)
    bar.set_label("busy, % of the time (busiest cable of each line)")


# --- one plane ------------------------------------------------------------------------------


def _draw_plane(
    axes: "Axes", topology: "Topology", plane: int, load: LinkLoad | None, dead: Mask
) -> None:
    """Draw the switches of a plane tier by tier, and the ports under each leaf as one box."""
    x, y = _places(topology, plane)
    lines, cables, busy, gone = _lines(topology, plane, load, dead)
    if len(lines) > LINES_MAX:
        draw_matrices(axes, topology, lines, None if load is None else busy, gone, _colors())
        _set_title(axes, topology, plane, gone)
        return
    widths = 0.5 + 0.8 * np.log2(np.maximum(1, cables))
    faint = min(1.0, max(0.08, 60 / max(1, len(lines)))) if load is None else None
    colors = np.array([mpl.colors.to_rgba(LINE) if load is None else _color(b) for b in busy])
    ends = np.stack([x[lines], y[lines]], axis=-1)
    for chosen, style, alpha in ((~gone, "solid", faint), (gone, "dotted", 0.4)):
        axes.add_collection(
            LineCollection(
                list(ends[chosen]),
                colors=[*colors[chosen]] if style == "solid" else LINE,
                linewidths=widths[chosen] if style == "solid" else 0.8,
                linestyles=style,
                alpha=alpha,
            )
        )
    tiers = topology.switch_tier[topology.switch_plane == plane]
    switches = np.flatnonzero(topology.switch_plane == plane) + topology.endpoints
    size = max(3.0, min(60.0, 1500 / max(1, np.bincount(tiers).max())))
    axes.scatter(x[switches], y[switches], s=size, marker="s", color=INK, zorder=3)
    _draw_ports(axes, topology, plane, x, load, dead)
    top = int(tiers.max(initial=0))
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.8, top + 0.35), xticks=[])
    axes.set_yticks([-0.42, *range(top + 1)])
    names = ["ports", "leaf", "spine" if top == 1 else "aggr.", "core"][: top + 2]
    axes.set_yticklabels(names if plane % PLANES_A_ROW == 0 else [""] * len(names))
    axes.tick_params(length=0, labelsize=8, colors=LINE)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    _set_title(axes, topology, plane, gone)


def _set_title(axes: "Axes", topology: "Topology", plane: int, gone: Mask) -> None:
    if topology.switch_plane.max():
        down = " is down" if len(gone) and gone.all() else ""
        axes.set_title(f"plane {plane}{down}", color=INK)


def _places(topology: "Topology", plane: int) -> tuple[Floats, Floats]:
    """Return (vertices,) x and y of the switches of a plane; ports have none."""
    x, y = (np.full(topology.endpoints + topology.switches, np.nan) for _ in range(2))
    for tier in range(3):
        switches = np.flatnonzero((topology.switch_plane == plane) & (topology.switch_tier == tier))
        x[topology.endpoints + switches] = (np.arange(len(switches)) + 0.5) / max(1, len(switches))
        y[topology.endpoints + switches] = tier
    return x, y


def _lines(
    topology: "Topology", plane: int, load: LinkLoad | None, dead: Mask
) -> tuple[Ints, Ints, Floats, Mask]:
    """Return of each line of a plane its two switches, cables, how busy, and whether gone."""
    between = topology.tier > 0
    ends = np.sort(np.stack([topology.tail, topology.head], axis=1)[between], axis=1)
    in_plane = topology.switch_plane[ends[:, 0] - topology.endpoints] == plane
    lines, line = np.unique(ends[in_plane], axis=0, return_inverse=True)
    line = line.ravel()
    busy = np.zeros(len(lines))
    if load is not None:
        np.maximum.at(busy, line, load.fabric[between][in_plane])
    links = np.bincount(line, minlength=len(lines))
    lost = np.bincount(line, weights=dead[between][in_plane], minlength=len(lines))
    return lines, links // 2, busy, lost == links


def _draw_ports(
    axes: "Axes", topology: "Topology", plane: int, x: Floats, load: LinkLoad | None, dead: Mask
) -> None:
    """Draw the ports under each leaf as a box, crossed out where all are down."""
    leaves = np.flatnonzero((topology.switch_plane == plane) & (topology.switch_tier == 0))
    width = 0.8 / max(1, len(leaves))
    counts = set()
    for leaf in leaves.tolist():
        ports = np.flatnonzero(topology.head[: topology.endpoints] == topology.endpoints + leaf)
        counts.add(len(ports))
        center = x[topology.endpoints + leaf]
        both = np.concatenate([topology.tx(ports), topology.rx(ports)])
        face: str | tuple[float, ...] = BOX if load is None else _color(load.fabric[both].max())
        axes.plot([center, center], [0, -0.3], color=LINE, linewidth=1, zorder=1)
        box = Rectangle((center - width / 2, -0.55), width, 0.25, facecolor=face, edgecolor="none")
        if dead[both].all():
            box.set(facecolor="white", edgecolor=LINE, hatch="xxx", linewidth=0.5)
        axes.add_patch(box)
        if len(leaves) <= LABELLED_LEAVES:
            axes.text(center, -0.62, str(len(ports)), ha="center", va="top", fontsize=7, color=INK)
    if len(leaves) > LABELLED_LEAVES:
        text = f"{len(leaves):,} leaves of {' or '.join(map(str, sorted(counts)))} ports"
        axes.text(0.5, -0.62, text, ha="center", va="top", fontsize=8, color=INK)


# --- one node -------------------------------------------------------------------------------


def _draw_node(axes: "Axes", cluster: ClusterSpec, load: LinkLoad | None) -> None:
    """Draw GPUs on their scale-up switch, and NIC ports with their planes."""
    node = cluster.node
    columns = min(8, node.gpus)
    rows = -(-min(node.gpus, DRAWN_GPUS) // columns)
    busiest = None if load is None else load.nvlink.reshape(-1, node.gpus).max(axis=0)
    for gpu in range(min(node.gpus, DRAWN_GPUS)):
        row, column = divmod(gpu, columns)
        color = GPU if busiest is None else _color(float(busiest[gpu]))
        corner = (column + 0.1, rows - row - 0.9)
        axes.add_patch(Rectangle(corner, 0.8, 0.8, facecolor=color, edgecolor="none"))
    axes.add_patch(Rectangle((0, -0.55), columns, 0.35, facecolor=BOX, edgecolor="none"))
    rate = format_quantity(node.chip.nvlink_bytes_per_s, "B/s", 3)
    axes.text(columns / 2, -0.38, f"NVLink {rate}", ha="center", va="center", fontsize=8)
    bottom = -0.8
    if cluster.topology().endpoints:
        _draw_nics(axes, cluster, columns)
        bottom = -1.8
    axes.set(xlim=(-0.2, columns + 0.2), ylim=(bottom, rows + 0.1), aspect="equal")
    axes.set_title(f"node: {node.gpus} × {node.chip.name}", color=INK)
    axes.axis("off")


def _draw_nics(axes: "Axes", cluster: ClusterSpec, columns: int) -> None:
    """Draw the ports of a node under its GPUs, each with the number of its plane."""
    ports, topology = cluster.node.ports, cluster.topology()
    width = columns / ports
    several = topology.switch_plane.max() > 0
    for port in range(ports):
        corner = ((port + 0.1) * width, -1.25)
        axes.add_patch(Rectangle(corner, 0.8 * width, 0.45, facecolor=LINE, edgecolor="none"))
        if several and ports <= 16:
            center = ((port + 0.5) * width, -1.02)
            plane = str(topology.plane_of[port])
            axes.text(*center, plane, ha="center", va="center", fontsize=7, color="white")
    rate = format_quantity(cluster.node.nic.link_bytes_per_s * 8, "b/s", 3)
    text = f"{ports} ports of {rate}" + (", by plane" if several else "")
    axes.text(columns / 2, -1.6, text, ha="center", va="center", fontsize=8)
