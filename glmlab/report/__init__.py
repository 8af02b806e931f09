"""Report: a study as one HTML file for people who were not there."""

from glmlab.report.report_file import write_report

__all__ = ["write_report"]
