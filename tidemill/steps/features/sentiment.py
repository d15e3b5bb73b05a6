"""Sentiment of the news of a dataset's symbols, bar by bar. What did not change is not computed again.

Two tables. Scores: of every item by the experiment's classifier, month by month of `known_at`; an item is scored once.
Sentiment: a row for each bar, chained over months like the features, with the state at the end of the second-newest month kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NewsSpec
from tidemill.features.sentiment import SentimentState, sentiment
from tidemill.provenance import fingerprint
from tidemill.storage.content import content_version
from tidemill.study import code as code_of
from tidemill.study.checkpoints import resume_with, save_state
from tidemill.study.context import NO_NEWS, classifier_of, items_of, news_key, scores_key
from tidemill.study.freshness import StepReport, Table, drop_others, is_made_of, stale, stored, unused
from tidemill.study.study import Study
from tidemill.study.tables import BARS, NEWS, NEWS_SCORES, SENTIMENT, SENTIMENT_INPUTS, month_of

_ALL = "all"


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """items: about symbols of the dataset. mean_score: of those that have one. months_computed: when they changed last."""

    items: int
    covered_symbols: int
    unscored_items: int
    mean_score: float | None
    months_computed: int


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the last success. months: month → fingerprint of what its sentiment was made of."""

    coverage: Coverage
    months: dict[str, str]


class SentimentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """half_life: in bars. items_scored: in this run."""

    classifier: str
    half_life: float
    items_scored: int
    coverage: Coverage


def compute_sentiment(study: Study) -> StepReport[SentimentFacts | None]:
    """Score what is new among the news; compute the months of sentiment whose inputs changed, and all after the first such."""
    spec = study.experiment.news
    if spec is None:
        return unused(code_of.sentiment(), NO_NEWS)
    scored = score_news(study, spec)
    key, part_fingerprint = sentiment_key(study), _inputs_fingerprint(study, spec)
    known = _kept(study, Table(SENTIMENT, key), part_fingerprint)
    if known is not None:
        return _report(study, spec, worked=False, scored=scored, coverage=known.coverage)
    wanted = sentiment_fingerprints(study)
    worked, coverage = _bring_up_to_date(study, spec, wanted)
    now = Known(coverage=coverage, months=wanted)
    study.lake.write(
        SENTIMENT_INPUTS, key, _ALL, pl.DataFrame(), fingerprint=part_fingerprint, metadata=msgspec.to_builtins(now)
    )
    return _report(study, spec, worked=worked, scored=scored, coverage=coverage)


def _kept(study: Study, table: Table, part_fingerprint: str) -> Known | None:
    """What was noted of the same inputs, where every month that they make is there; None where some work is left."""
    held = study.lake.manifest(SENTIMENT_INPUTS, table.key, _ALL)
    if held is None or not is_made_of(held, part_fingerprint):
        return None
    known = msgspec.convert(held.metadata, Known)
    return None if stale(study.lake, [table], known.months) else known


def _inputs_fingerprint(study: Study, spec: NewsSpec) -> str:
    """Everything that decides the sentiment, so that nothing need be read to know that nothing changed."""
    scores = study.lake.manifests(NEWS_SCORES, scores_key(study, spec))
    decided = {month: (manifest.fingerprint, manifest.data_version) for month, manifest in scores.items()}
    return fingerprint(code_of.sentiment(), _selection(study), study.bars_version, decided)


def _selection(study: Study) -> tuple[object, ...]:
    chosen = study.experiment.dataset
    return chosen.symbols, chosen.start, chosen.end


def _bring_up_to_date(study: Study, spec: NewsSpec, wanted: dict[str, str]) -> tuple[bool, Coverage]:
    tables, months = [Table(SENTIMENT, sentiment_key(study))], list(wanted)
    old = stale(study.lake, tables, wanted)
    first = months.index(old[0]) if old else len(months)
    if old:
        _compute_from(study, spec, first, wanted)
    drop_others(study.lake, tables, wanted)
    items = items_of(study)
    mean = items.filter(pl.col("score").is_finite())["score"].mean()
    return bool(old), Coverage(
        items=items["item_id"].n_unique(),
        covered_symbols=items["symbol"].n_unique(),
        unscored_items=items.filter(~pl.col("score").is_finite())["item_id"].n_unique(),
        mean_score=mean if isinstance(mean, float) else None,
        months_computed=len(months) - first,
    )


def score_news(study: Study, spec: NewsSpec) -> int:
    """Score the items that this classifier has not scored yet; returns how many."""
    classifier, key, made = classifier_of(study, spec), scores_key(study, spec), 0
    have, news = study.lake.manifests(NEWS_SCORES, key), study.lake.manifests(NEWS, news_key(study))
    for month, manifest in news.items():
        if is_made_of(have.get(month), manifest.data_version):
            continue
        items = study.lake.scan(NEWS, news_key(study), partitions=[month]).collect()
        if month in have:
            known = study.lake.scan(NEWS_SCORES, key, partitions=[month]).collect()
            fresh = items.join(known, on="item_id", how="anti")
        else:
            known, fresh = pl.DataFrame(), items
        texts = fresh.select(pl.concat_str("headline", "body", separator=". ")).to_series().to_list()
        scores = fresh.select("item_id").with_columns(pl.Series("score", classifier.score(texts), dtype=pl.Float64))
        whole = pl.concat([known, scores]) if known.height else scores
        study.lake.write(NEWS_SCORES, key, month, whole.sort("item_id"), fingerprint=manifest.data_version)
        made += fresh.height
    return made


def sentiment_key(study: Study) -> str:
    """Where the sentiment of a dataset lies: source, classifier, half-life and names decide it."""
    spec = study.experiment.news
    if spec is None:
        raise InputError(f"A feature reads the sentiment of news. {NO_NEWS} Name a source, such as file:news.csv.")
    return f"{study.dataset.key}.{fingerprint(scores_key(study, spec), spec.half_life, spec.aliases)[:8]}"


def sentiment_fingerprints(study: Study) -> dict[str, str]:
    """Month → fingerprint of everything that its sentiment depends on, in order of time.

    An item counts for the month of the first bar that could know it: one that closes at `known_at` opened an interval before.
    """
    bars = study.lake.manifests(BARS, study.dataset.bars_key)
    months = (pl.col("known_at") - study.dataset.interval.delta).dt.strftime("%Y-%m")
    parts = items_of(study).with_columns(months.alias("month")).partition_by("month", as_dict=True)
    fingerprints = {str(key[0]): content_version(part) for key, part in parts.items()}
    previous = fingerprint(code_of.sentiment(), _selection(study), sentiment_key(study))
    chain: dict[str, str] = {}
    taken: set[str] = set()
    for month in sorted(bars):
        # Items of months without a bar wait for the next bar there is.
        due = [name for name in sorted(fingerprints) if name <= month and name not in taken]
        taken.update(due)
        previous = chain[month] = fingerprint(previous, bars[month].data_version, [fingerprints[name] for name in due])
    return chain


def _compute_from(study: Study, spec: NewsSpec, changed: int, wanted: dict[str, str]) -> None:
    months = list(wanted)
    first, state = resume_with(SentimentState.from_bytes, _folder(study), months, changed, wanted)
    for stretch in filter(None, (months[first:-1], months[-1:])):
        bars = study.adjusted_of(stretch).select("symbol", "open_time")
        frame, state = sentiment(bars, items_of(study), study.dataset.interval.delta, half_life=spec.half_life, state=state)
        _write_months(study, frame, stretch, wanted)
        save_state(_folder(study), stretch[-1], wanted[stretch[-1]], state)


def _folder(study: Study) -> Path:
    return study.workspace.settings.home / "state" / f"{SENTIMENT}-{sentiment_key(study)}"


def _write_months(study: Study, frame: pl.DataFrame, months: Sequence[str], wanted: Mapping[str, str]) -> None:
    parts = frame.with_columns(month_of().alias("__month")).partition_by("__month", as_dict=True, include_key=False)
    for month in months:
        part = parts.get((month,), frame.clear())
        study.lake.write(SENTIMENT, sentiment_key(study), month, part, fingerprint=wanted[month])


def with_sentiment(study: Study, bars: pl.DataFrame) -> pl.DataFrame:
    """The bars, and their sentiment beside them. InputError where one of their months was not computed yet."""
    key = sentiment_key(study)
    months = bars.select(pl.col("open_time").dt.truncate("1mo").unique()).select(month_of()).to_series()
    missing = set(months) - study.lake.manifests(SENTIMENT, key).keys()
    if missing:
        raise InputError(
            f"The sentiment of the news has not been computed for {min(missing)} yet. Materialize features/sentiment first."
        )
    known = study.lake.scan(SENTIMENT, key).filter(
        pl.col("open_time").is_between(bars["open_time"].min(), bars["open_time"].max())
    )
    return bars.join(known.collect(), on=("symbol", "open_time"), how="left", maintain_order="left")


def sentiment_prints(study: Study) -> dict[str, str]:
    """Month → version of its sentiment."""
    return {month: manifest.data_version for month, manifest in study.lake.manifests(SENTIMENT, sentiment_key(study)).items()}


def _report(study: Study, spec: NewsSpec, *, worked: bool, scored: int, coverage: Coverage) -> StepReport[SentimentFacts]:
    silent = "No item is about a symbol of this dataset, so the sentiment is unknown throughout."
    news = {month: manifest.data_version for month, manifest in study.lake.manifests(NEWS, news_key(study)).items()}
    classifier = classifier_of(study, spec).name
    return stored(
        study.lake.manifests(SENTIMENT, sentiment_key(study)),
        worked=worked,
        code_version=code_of.sentiment(),
        inputs={NEWS: fingerprint(news)},
        facts=SentimentFacts(classifier=classifier, half_life=spec.half_life, items_scored=scored, coverage=coverage),
        notes=() if coverage.covered_symbols else (silent,),
    )
