"""Every table of the lake that a study keeps: its name, and what one of its partitions stands for.

A table lies at `<lake>/<table>/dataset=<key>/partition=<part>`. Keys are made by `study.Study`; a part is a month, a fold, a
book, or the whole.

    bars, flags, imports            market data      month, `all`, a source
    news, news_imports              market data      month of `known_at`, the last look at the source
    fear_greed                      market data      the whole of a source
    features, labels                features         month
    news_scores, sentiment          features         month of `known_at`, month of the bar
    sentiment_inputs                features         what all months of sentiment were last made of
    regime, regime_fits             features         month: states, and the models in force at its end
    predictions, risk               predictions      fold
    risk_skill                      predictions      `all`
    refusals, feature_bounds        predictions      fold
    signals, equity, trades, …      trading          book
    attribution                     trading          book
    engine_shares                   trading          fold
    metrics                         performance      what is measured
    drift                           performance      `features`
    challenges                      models           `last`
    failures                        models           engine: why it takes no part
"""

from __future__ import annotations

import polars as pl

from tidemill.validation.splits import Fold

BARS, FLAGS, IMPORTS = "bars", "flags", "imports"
NEWS, NEWS_IMPORTS, FEAR_GREED = "news", "news_imports", "fear_greed"
FEATURES, LABELS = "features", "labels"
NEWS_SCORES, SENTIMENT, SENTIMENT_INPUTS = "news_scores", "sentiment", "sentiment_inputs"
REGIME, REGIME_FITS = "regime", "regime_fits"
PREDICTIONS = "predictions"
RISK, RISK_SKILL = "risk", "risk_skill"
REFUSALS, FEATURE_BOUNDS = "refusals", "feature_bounds"
SIGNALS, EQUITY, TRADES, POSITIONS = "signals", "equity", "trades", "positions"
ATTRIBUTION, ENGINE_SHARES = "attribution", "engine_shares"
METRICS, DRIFT = "metrics", "drift"
CHALLENGES = "challenges"
FAILURES = "failures"
ENGINES, PORTFOLIO, SELECTION = "engines", "portfolio", "selection"  # parts of it

# Books that are not of one engine.
ENSEMBLE, BENCHMARK = "ensemble", "benchmark"

# In a month's manifest: the share of its values that are numbers, so that a picture of all months reads none of them.
KNOWN = "known"
# How predictions are stored in Postgres; another way writes all of them again.
STORED = "by book"
# The first paragraph, beside the report: whoever only tells it need not gather everything again.
SUMMARY = "summary.json"
_FOLD = "fold-"


def month_of(column: str = "open_time") -> pl.Expr:
    """The month, as partitions are named."""
    return pl.col(column).dt.strftime("%Y-%m")


def partition_of(fold: Fold) -> str:
    """Where what belongs to a fold lies in a table."""
    return f"{_FOLD}{fold.number:03d}"


def fold_of(partition: str) -> int:
    """The number of the fold that lies there."""
    return int(partition.removeprefix(_FOLD))
