"""Draws a run's records as one self-contained HTML page. No torch, no plotting library."""

from deepwright.report.page import write_report as write_report
