"""Studies that are shipped: each can be read, has a point that runs, and stands in the README with
every figure that it shows there.
"""

import re
from pathlib import Path

import pytest

from simulator.study.document import load_study, study_names
from simulator.study.run import Study

CHECKOUT = Path(__file__).resolve().parents[3]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", study_names())
def test_a_study_is_ready_to_run_and_its_first_point_says_what_it_comes_to(name):
    study = Study.of(load_study(name))
    row = study.row(0)
    assert row["feasible"] or row["reason"]
    assert len(study.grid) > 1


@pytest.mark.parametrize("name", study_names())
def test_the_readme_tells_of_a_study_and_shows_a_figure_of_it(name):
    assert f"- **{name}**: " in README
    figures = {figure.name for figure in load_study(name).figures}
    shown = re.findall(rf"\(docs/studies/{name}-(\w+)\.png\)", README)
    assert shown
    assert set(shown) <= figures
    assert all((CHECKOUT / f"docs/studies/{name}-{figure}.png").is_file() for figure in shown)
