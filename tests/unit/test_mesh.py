"""Axes of ranks: coordinates, groups and foldings, by their closed form and as laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodels.errors import InfeasibleError
from workloads.mesh import Mesh

AXES = ("pp", "dp", "cp", "tp", "edp", "ep")


@st.composite
def meshes(draw):
    """Two foldings of up to 4 x 4 x 2 x 4 ranks."""
    pp, edp, ep, cp, tp = (draw(st.integers(1, most)) for most in (4, 3, 4, 2, 2))
    dense = {"pp": pp, "dp": edp * ep, "cp": cp, "tp": tp}
    return Mesh.of(dense=dense, expert={"pp": pp, "edp": edp, "ep": ep * cp * tp})


AXIS_SETS = st.sampled_from(
    [("pp",), ("ep",), ("dp", "cp", "tp"), ("tp",), ("cp",), ("edp",), ("edp", "ep"), ("pp", "dp")]
)


@given(meshes())
def test_a_rank_is_the_row_major_number_of_its_coordinates_in_every_folding(mesh):
    at = {axis: mesh.at(axis) for axis in AXES}
    size = {axis: mesh.size(axis) for axis in AXES}
    ranks = np.arange(mesh.ranks)
    dense = ((at["pp"] * size["dp"] + at["dp"]) * size["cp"] + at["cp"]) * size["tp"] + at["tp"]
    expert = (at["pp"] * size["edp"] + at["edp"]) * size["ep"] + at["ep"]
    assert dense.tolist() == expert.tolist() == ranks.tolist()


@given(meshes(), AXIS_SETS)
def test_groups_hold_every_rank_once_and_differ_in_their_axes_only(mesh, axes):
    groups = mesh.groups(*axes)
    assert groups.shape == (mesh.ranks // mesh.size(*axes), mesh.size(*axes))
    assert np.sort(groups, axis=None).tolist() == list(range(mesh.ranks))
    folding = ("pp", "edp", "ep") if set(axes) & {"edp", "ep"} else ("pp", "dp", "cp", "tp")
    for axis in folding:
        at = mesh.at(axis, groups)
        distinct = len(np.unique(at, axis=1).T)
        assert distinct == (mesh.size(axis) if axis in axes else 1)
    assert (np.diff(groups, axis=1) > 0).all()
    assert (np.diff(groups[:, 0]) > 0).all()


@given(meshes(), AXIS_SETS)
def test_a_rank_is_in_the_group_that_it_is_told_to_be_in(mesh, axes):
    groups, number = mesh.groups(*axes), mesh.group_at(axes)
    assert (groups[number] == np.arange(mesh.ranks)[:, None]).sum(axis=1).tolist() == [
        1
    ] * mesh.ranks


@pytest.mark.parametrize("axes", [("dp", "dp"), ("tp", "ep"), ("no",)], ids="+".join)
def test_axes_that_no_folding_has_once_each_have_no_size_and_no_groups(axes):
    mesh = Mesh.of(dense={"pp": 2, "dp": 4, "tp": 2}, expert={"pp": 2, "edp": 2, "ep": 4})
    for ask in (mesh.size, mesh.groups):
        with pytest.raises(InfeasibleError, match=r"must stand in one folding \(.*\), each once"):
            ask(*axes)


@given(meshes(), AXIS_SETS)
def test_played_ranks_stand_for_all(mesh, axes):
    ranks, many = mesh.alike(axes)
    assert len(ranks) == mesh.size(*axes)
    assert many.sum() == mesh.ranks
    assert set(mesh.group_at(axes, ranks).tolist()) == {0}


def test_groups_of_deepseek_v3():
    """2,048 GPUs, PP 16, EP 64: GPU 200 is on pipeline rank 1, in the second expert group there."""
    mesh = Mesh.of(
        dense={"pp": 16, "dp": 128, "cp": 1, "tp": 1}, expert={"pp": 16, "edp": 2, "ep": 64}
    )
    assert mesh.groups("ep")[mesh.group_at(["ep"], 200)].tolist() == list(range(192, 256))
    assert mesh.groups("pp")[mesh.group_at(["pp"], 200)].tolist()[:3] == [72, 200, 328]


@pytest.mark.parametrize(
    ("foldings", "message"),
    [
        ({"a": {"x": 2, "y": 3}, "b": {"z": 5}}, "same ranks, got a over 6, b over 5"),
        ({"a": {"x": 2, "y": 3}, "b": {"y": 3, "x": 2}}, "axis 'x' must lie alike"),
    ],
)
def test_foldings_that_do_not_fit_are_refused(foldings, message):
    with pytest.raises(InfeasibleError, match=message):
        Mesh.of(**foldings)


def test_a_rank_and_axes_that_are_not_there_are_refused():
    mesh = Mesh.of(dense={"pp": 2, "dp": 2}, expert={"pp": 2, "ep": 2})
    with pytest.raises(InfeasibleError, match="rank: from 0 to 3, got 4"):
        mesh.at("pp", 4)
    with pytest.raises(InfeasibleError, match="must stand in one folding"):
        mesh.groups("dp", "ep")
