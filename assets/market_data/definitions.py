"""The service `data`."""

from assets.market_data.bars import bars, gaps, instruments
from assets.market_data.checks import bar_checks
from assets.market_data.fear_greed import fear_greed
from assets.market_data.news import news
from assets.service import service

defs = service("data", "Bars, instruments, gaps, index and news.", [bars, instruments, gaps, fear_greed, news], [bar_checks])
