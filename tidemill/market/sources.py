"""Every source of bars by its name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.config import Settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.ports import BarSource

if TYPE_CHECKING:
    from tidemill.services import ServiceOptions

SAMPLE = "sample"
VENUES = ("binance", "coinbase", "kraken")  # whose bars go on by themselves
SOURCES = (SAMPLE, "file:PATH", *VENUES)
LONG_ONLY = VENUES  # spot: nothing can be sold short


def open_source(spec: str, settings: Settings) -> BarSource:
    """The source named `sample`, `file:PATH`, `binance`, `coinbase` or `kraken`.

    Close it when done. Raises UnknownNameError, which names the choices; a source raises its own errors for a bad path.
    """
    kind, colon, path = spec.partition(":")
    if kind == "file" and colon:
        return _file(path, settings)
    opener = {"sample": _sample, "binance": _binance, "coinbase": _coinbase, "kraken": _kraken}.get(spec)
    if opener is None:
        raise UnknownNameError("source", spec, SOURCES)
    made: Callable[[Settings], BarSource] = opener
    return made(settings)


def _sample(settings: Settings) -> BarSource:
    from tidemill.market.sample import SampleSource

    return SampleSource(settings)


def _file(path: str, settings: Settings) -> BarSource:
    from tidemill.market.files import FileSource

    if not path:
        raise InputError("The source file: names no path. Write file:PATH, for example file:prices.csv.")
    return FileSource(Path(path).expanduser(), settings)


def _binance(settings: Settings) -> BarSource:
    from tidemill.market.binance import BinanceSource

    return BinanceSource(options=_options(settings))


def _coinbase(settings: Settings) -> BarSource:
    from tidemill.market.coinbase import CoinbaseSource

    return CoinbaseSource(options=_options(settings))


def _kraken(settings: Settings) -> BarSource:
    from tidemill.market.kraken import KrakenSource

    return KrakenSource(options=_options(settings))


def _options(settings: Settings) -> "ServiceOptions":
    from tidemill.services import ServiceOptions

    return ServiceOptions(timeout=settings.http_timeout, deadline=3.0 * settings.http_timeout)
