"""Where a study keeps what lies beside the lake."""

from __future__ import annotations

from pathlib import Path

from tidemill.study.study import Study


def report_path(study: Study) -> Path:
    return study.workspace.settings.home / "reports" / study.key / "report.html"
