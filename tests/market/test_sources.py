import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.config import Settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.ports import BarSource
from tidemill.market.sources import SOURCES, open_source


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, http_timeout=3.0)


@pytest.mark.parametrize(
    ("name", "host"), [("binance", "api.binance.com"), ("coinbase", "api.exchange.coinbase.com"), ("kraken", "api.kraken.com")]
)
async def test_a_venue_opens_by_its_name_and_asks_nothing_yet(settings: Settings, name: str, host: str) -> None:
    source = open_source(name, settings)
    assert source.venue == name
    assert source.health().host == host
    assert source.health().attempts == 0
    await source.close()


async def test_the_sample_opens_by_its_name(settings: Settings) -> None:
    source: BarSource = open_source("sample", settings)
    assert source.venue
    await source.close()


async def test_a_file_opens_by_its_path(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "My Prices.csv"
    path.write_text("symbol,date,open,high,low,close,volume\nA,2024-01-02,1,2,0.5,1.5,10\n")
    source = open_source(f"file:{path}", settings)
    assert source.venue == "my_prices"
    await source.close()


@pytest.mark.parametrize("spec", ["", "bitstamp", "Binance", "binance:", "file", "http://host/", "sample:x", "../x"])
def test_any_other_name_is_an_error_that_names_the_choices(settings: Settings, spec: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        open_source(spec, settings)
    assert caught.value.choices == SOURCES
    for choice in SOURCES:
        assert choice in str(caught.value)


def test_a_file_without_a_path_is_an_error_that_shows_how_to_write_it(settings: Settings) -> None:
    with pytest.raises(InputError, match="file:PATH"):
        open_source("file:", settings)


def test_opening_a_venue_loads_neither_httpx_nor_polars() -> None:
    code = (
        "import sys; from tidemill.config import Settings; from tidemill.market.sources import open_source;"
        "[open_source(name, Settings()) for name in ('binance', 'coinbase', 'kraken')];"
        "print(sorted({'httpx', 'polars', 'stamina', 'purgatory', 'structlog', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
