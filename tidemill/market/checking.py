"""What an experiment says of where its data come from, checked before any work. No venue is asked, no file read."""

from datetime import UTC, datetime

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import DatasetSpec, Experiment, NewsSpec
from tidemill.domain.intervals import Interval, moment
from tidemill.domain.market import valid_symbol
from tidemill.market.sources import LONG_ONLY, SOURCES
from tidemill.strategies.benchmark import EQUAL_WEIGHT


def check(experiment: Experiment) -> None:
    """UnknownNameError or InputError for a source, interval, symbol, date, benchmark or file that cannot be used."""
    _check_dataset(experiment.dataset)
    _check_benchmark(experiment.benchmark, experiment.dataset.symbols)
    _check_shorts(experiment)
    if experiment.news is not None:
        _check_news(experiment.news)
    if experiment.features.fear_greed is not None:
        _check_fear_greed(experiment.features.fear_greed)


def _check_dataset(spec: DatasetSpec) -> None:
    if spec.source not in SOURCES and not (spec.source.startswith("file:") and spec.source != "file:"):
        raise UnknownNameError("source", spec.source, SOURCES)
    Interval.parse(spec.interval)
    for symbol in spec.symbols:
        valid_symbol(symbol)
    start, end = moment(spec.start, "dataset.start"), moment(spec.end, "dataset.end")
    if start is not None and end is not None and end <= start:
        raise InputError(f"dataset.end {spec.end} is not after dataset.start {spec.start}. Swap them.")
    if start is not None and start > datetime.now(UTC):
        raise InputError(f"dataset.start {spec.start} is in the future, where there are no bars yet. Give an earlier date.")


def _check_benchmark(name: str, symbols: tuple[str, ...]) -> None:
    if name == EQUAL_WEIGHT:
        return
    valid_symbol(name)
    if symbols and name not in symbols:
        raise UnknownNameError("benchmark", name, (EQUAL_WEIGHT, *symbols), "A benchmark is one of dataset.symbols.")


def _check_shorts(experiment: Experiment) -> None:
    neutralise, source = experiment.strategy.neutralise, experiment.dataset.source
    if neutralise is not None and neutralise.by == "beta" and source in LONG_ONLY:
        raise InputError(
            f"strategy.neutralise.by is beta, which needs symbols that can be sold short; none can on {source}. "
            "Write by: sector, or leave neutralise out."
        )


def _check_news(spec: NewsSpec) -> None:
    from tidemill.market.news_sources import require_source

    require_source(spec.source)
    for symbol, names in spec.aliases.items():
        valid_symbol(symbol)
        if not all(name.strip() for name in names):
            raise InputError(f"news.aliases has an empty name for {symbol}. Write a name, or remove the entry.")
    kind, _, place = spec.source.partition(":")
    if kind == "file":
        from tidemill.market.news_files import news_file

        news_file(place)


def _check_fear_greed(spec: str) -> None:
    from tidemill.market.fear_greed import API, fear_greed_source, require_source

    require_source(spec)
    if spec != API:
        fear_greed_source(spec)
