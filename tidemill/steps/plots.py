"""Small pictures for the web UI: PNG bytes, drawn only when a step had work to do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl

from tidemill.domain.months import month_start
from tidemill.study.study import Study
from tidemill.study.tables import FEATURES, KNOWN, SENTIMENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 600


def _figure(title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(7, 3), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _thin(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.gather_every(max(frame.height // _POINTS, 1))


def closes(study: Study) -> bytes:
    """Total-return prices of up to five symbols, each from 1, logarithmic."""
    figure, axes = _figure("Total-return price, from 1 (first five symbols)")
    for symbol in study.bars["symbol"].unique().sort().head(5):
        own = _thin(study.adjusted.filter(pl.col("symbol") == symbol).select("open_time", "close"))
        axes.plot(own["open_time"].to_list(), (own["close"] / own["close"][0]).to_list(), linewidth=1, label=symbol)
    axes.set_yscale("log")
    axes.legend(fontsize=7, frameon=False)
    return _png(figure)


def feature_coverage(study: Study) -> bytes:
    """Share of feature values that are known, by month."""
    months = study.lake.manifests(FEATURES, study.features_key)
    known = {month: held.metadata[KNOWN] for month, held in sorted(months.items()) if held.metadata.get(KNOWN) is not None}
    figure, axes = _figure(f"Share of {len(study.available.names)} features that are known, by month")
    axes.plot(pl.Series([month_start(month) for month in known]).to_list(), list(known.values()), linewidth=1.2)
    axes.set_ylim(0, 1.02)
    return _png(figure)


def labels(study: Study) -> bytes:
    """Distribution of the labels within ±4 standard deviations."""
    values = study.lake.scan("labels", study.labels_key).select("label").collect()["label"].drop_nulls().to_numpy()
    figure, axes = _figure(f"Labels: return over {study.experiment.label.horizon} bars")
    spread = 4.0 * float(values.std()) if len(values) > 1 and values.std() > 0 else 1.0
    axes.hist(values.clip(-spread, spread), bins=80)
    return _png(figure)


def predictions(study: Study) -> bytes:
    """Mean rank IC by month of each engine, cumulated."""
    from tidemill.metrics.predictions import ic_by_month
    from tidemill.study.scoring import coefficients_of, scored_rows

    figure, axes = _figure("Rank IC out of sample, monthly means cumulated")
    for spec in study.engines:
        months = ic_by_month(scored_rows(study, spec.name), coefficients_of(study, spec.name)).drop_nulls("rank_ic")
        axes.plot(
            months["month"].str.to_date("%Y-%m").to_list(), months["rank_ic"].cum_sum().to_list(), linewidth=1, label=spec.name
        )
    axes.legend(fontsize=7, frameon=False)
    return _png(figure)


def equity(study: Study) -> bytes:
    """Equity of every book after costs, logarithmic."""
    from tidemill.study.scoring import books
    from tidemill.study.tables import BENCHMARK

    figure, axes = _figure("Equity after costs, from 1")
    for book in (*books(study), BENCHMARK):
        own = _thin(study.lake.scan("equity", study.key, partitions=[book]).sort("time").collect())
        style = (
            {"linewidth": 1.6} if book == "ensemble" else {"linewidth": 0.9, "linestyle": "--" if book == BENCHMARK else "-"}
        )
        axes.plot(own["time"].to_list(), (own["equity"] / own["equity"][0]).to_list(), label=book, **style)
    axes.set_yscale("log")
    axes.legend(fontsize=7, frameon=False, ncols=2)
    return _png(figure)


def drawdown(study: Study) -> bytes:
    """Drawdown of the ensemble's portfolio and of the benchmark."""
    from tidemill.study.tables import BENCHMARK

    figure, axes = _figure("Drawdown")
    for book in ("ensemble", BENCHMARK):
        own = study.lake.scan("equity", study.key, partitions=[book]).sort("time").collect()
        fallen = _thin(own.with_columns((pl.col("equity") / pl.col("equity").cum_max() - 1.0).alias("fallen")))
        axes.plot(fallen["time"].to_list(), fallen["fallen"].to_list(), linewidth=1, label=book)
    axes.legend(fontsize=7, frameon=False)
    return _png(figure)


def skill(study: Study) -> bytes:
    """Rank IC and Sharpe after costs, side by side for each book."""
    from tidemill.study.metrics import engine_metrics

    frame = engine_metrics(study.lake, study.key)
    figure, axes = _figure("Sharpe before and after costs")
    places = range(frame.height)
    axes.bar([at - 0.2 for at in places], frame["sharpe_gross"].fill_null(0.0).to_list(), width=0.4, label="before costs")
    axes.bar([at + 0.2 for at in places], frame["sharpe"].fill_null(0.0).to_list(), width=0.4, label="after costs")
    axes.set_xticks(list(places), frame["book"].to_list(), fontsize=8)
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.legend(fontsize=7, frameon=False)
    return _png(figure)


def regimes(study: Study) -> bytes:
    """Share of symbols in each state of the hidden Markov model over time, the calmest at the bottom."""
    from tidemill.steps.features.regime import PROBABILITY, STATES, regime_frame

    names = [PROBABILITY.format(state=state) for state in range(1, STATES + 1)]
    means = regime_frame(study).group_by("open_time").agg(pl.col(name).fill_nan(None).mean() for name in names)
    shares = _thin(means.drop_nulls().sort("open_time"))
    figure, axes = _figure("Mean probability of each volatility state, filtered")
    axes.stackplot(
        shares["open_time"].to_list(),
        *(shares[name].to_list() for name in names),
        labels=("calm", "middle", "wild"),
        colors=("#7fb3d5", "#f7dc6f", "#e59866"),
    )
    axes.set_ylim(0.0, 1.0)
    axes.legend(fontsize=7, frameon=False, ncols=3)
    return _png(figure)


def fear_greed(study: Study) -> bytes | None:
    """The Fear & Greed Index from the times at which its values were known; nothing where it is not used."""
    from tidemill.steps.market_data.fear_greed import known_index

    if study.experiment.features.fear_greed is None:
        return None
    known = _thin(known_index(study))
    figure, axes = _figure("Fear & Greed Index, as it was known")
    axes.plot(known["known_at"].to_list(), known["fear_greed"].to_list(), linewidth=1)
    axes.set_ylim(0.0, 100.0)
    return _png(figure)


def sentiment(study: Study) -> bytes | None:
    """Mean sentiment of the symbols whose news is known, and how many those are; nothing where no news is used."""
    from tidemill.steps.features.sentiment import sentiment_key

    if study.experiment.news is None:
        return None
    known = pl.col("sentiment_mean").filter(pl.col("sentiment_mean").is_not_nan())
    frame = (
        study.lake.scan(SENTIMENT, sentiment_key(study)).group_by("open_time").agg(known.mean(), known.len().alias("symbols"))
    )
    shown = _thin(frame.sort("open_time").collect())
    figure, axes = _figure("Mean sentiment of the symbols with news (line) and their number (area)")
    axes.plot(shown["open_time"].to_list(), shown["sentiment_mean"].to_list(), linewidth=1)
    beside = axes.twinx()
    beside.fill_between(shown["open_time"].to_list(), shown["symbols"].to_list(), alpha=0.15, linewidth=0)
    beside.tick_params(labelsize=8)
    return _png(figure)
