"""The service `trading`."""

from assets.service import service
from assets.trading.backtest import backtest, signals
from assets.trading.checks import signal_causality

defs = service("trading", "Signals and backtests.", [signals, backtest], [signal_causality])
