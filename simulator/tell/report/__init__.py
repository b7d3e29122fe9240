"""A run and a study as one page each: a file that opens anywhere, without a network.

Text that a page shows is escaped where it is put in: by Jinja in its templates, by `textContent` in
its scripts, and as entities in what Plotly draws. A policy in its head lets it load nothing.
"""

from simulator.tell.report.run_page import run_report
from simulator.tell.report.study_page import study_report

__all__ = ["run_report", "study_report"]
