"""A tracked experiment: bars that close at a venue move it, and the notebook reads where it stands."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest

from sensors.experiments import experiments_in
from sensors.new_data import decide, open_folder, tracked_experiments
from tests.e2e.conftest import NOTEBOOK, Home
from tests.e2e.test_notebook import execute, printed, shown
from tests.market.venue_server import VenueServer, recorded_bars
from tests.study.panels import small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import DatasetSpec
from tidemill.domain.ports import BarSource
from tidemill.embedded import servers
from tidemill.experiments.files import to_text
from tidemill.market.binance import BinanceSource

SYMBOLS = ("ATOMUSDT", "AVAXUSDT", "BTCUSDT", "ETHUSDT", "LINKUSDT", "LTCUSDT")
NOW = datetime(2024, 3, 15, 11, 0, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@contextmanager
def serving(server: VenueServer) -> Iterator[None]:
    """The venue on a thread of its own, since a run takes this one."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.long
def test_a_bar_that_closes_at_a_venue_moves_the_session_that_the_notebook_reads(
    shared_data: Path, new_database_home: Callable[[], Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = DatasetSpec(source="binance", interval="1h", symbols=SYMBOLS, start="2024-03-01")
    experiment = small_experiment(tmp_path, name="live", dataset=dataset)
    file = tmp_path / "live.yaml"
    file.write_text(to_text(experiment), encoding="utf-8")
    home = replace(new_database_home(), experiment=experiment, file=file)
    venue = VenueServer(shared_data, recorded_bars(shared_data, SYMBOLS), NOW)

    def local(_: Settings) -> BarSource:
        return BinanceSource(base_url=venue.url)

    def read() -> str:
        done = execute(tmp_path / "out.ipynb", home.variables(), NOTEBOOK.with_name("read_session.ipynb"), experiment=str(file))
        assert done.returncode == 0, done.stderr[-2000:]
        made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        return printed(made) + shown(made)

    monkeypatch.setattr("tidemill.market.sources._binance", local)
    with serving(venue):
        assert home.run().succeeded
        before = read()
        venue.virtual.advance(HOUR.total_seconds())
        with servers(home.settings):
            tracked = tracked_experiments(experiments_in(home.settings))
            inbox, now = open_folder(home.settings.inbox), datetime.now(UTC)
            nothing, cursor = decide(None, inbox, tracked, now)
            asked, _ = decide(cursor, inbox, tracked, now + HOUR)
        assert nothing == []
        assert [request.experiment for request in asked] == [experiment]
        assert home.run().succeeded
    after = read()
    assert "newest bar 2024-03-15 10:00 UTC" in before
    assert "newest bar 2024-03-15 11:00 UTC" in after
    for stands in (before, after):
        assert "0 of 6 symbols have no bar" in stands
