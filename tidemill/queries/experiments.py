"""Which experiments were run in this home."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tidemill.study.places import EXPERIMENT, stored_experiment

if TYPE_CHECKING:
    from pathlib import Path

    from tidemill.config import Settings
    from tidemill.domain.experiment import Experiment


async def latest_experiment(settings: Settings) -> Experiment | None:
    """The experiment whose report was written last; None when there is no report."""
    return await asyncio.to_thread(_latest, settings.home / "reports")


def _latest(reports: Path) -> Experiment | None:
    newest = max(reports.glob(f"*/{EXPERIMENT}"), key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else stored_experiment(newest)
