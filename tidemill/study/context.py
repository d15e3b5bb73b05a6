"""What is known beside the bars of a study, as a run stored it: versions of the Fear & Greed Index, and items of news."""

from __future__ import annotations

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NewsSpec
from tidemill.market.fear_greed import fear_greed_source
from tidemill.market.news import Mentions, NewsSource
from tidemill.market.news_files import NewsFile
from tidemill.market.news_sources import open_news
from tidemill.models.text.registry import TextClassifier, text_classifier
from tidemill.services import ServiceOptions
from tidemill.study.sources import claimed_news
from tidemill.study.study import Study
from tidemill.study.tables import FEAR_GREED, NEWS, NEWS_SCORES

NO_NEWS = "This experiment uses no news: it has no `news`."
_ITEMS = {"symbol": pl.String(), "known_at": pl.Datetime("us", "UTC"), "score": pl.Float64(), "item_id": pl.String()}


def index_versions(study: Study) -> pl.DataFrame:
    """stamp, value, known_at of every version of the index. InputError where it was not fetched yet."""
    spec = study.experiment.features.fear_greed
    if spec is None:
        raise InputError("A feature reads the Fear & Greed Index, and the experiment names no source: set features.fear_greed.")
    name = fear_greed_source(spec).name
    if not study.lake.holds(FEAR_GREED, name):
        raise InputError("The Fear & Greed Index has not been fetched yet. Materialize market_data/fear_greed first.")
    return study.lake.scan(FEAR_GREED, name).collect()


def news_key(study: Study) -> str:
    """Where the items of the experiment's source lie. InputError when the experiment uses no news."""
    spec = study.experiment.news
    if spec is None:
        raise InputError(f"{NO_NEWS} Name a source, such as file:news.csv.")
    return study.once("news_key", lambda: news_source(study, spec).name)


def news_source(study: Study, spec: NewsSpec) -> NewsSource:
    timeout = study.workspace.settings.http_timeout
    source = open_news(spec.source, ServiceOptions(timeout=timeout, deadline=3.0 * timeout))
    return source.kept_under(claimed_news(study.workspace, source)) if isinstance(source, NewsFile) else source


def classifier_of(study: Study, spec: NewsSpec) -> TextClassifier:
    return study.once("classifier", lambda: text_classifier(spec.classifier))


def scores_key(study: Study, spec: NewsSpec) -> str:
    return f"{news_key(study)}.{classifier_of(study, spec).fingerprint[:8]}"


def items_of(study: Study) -> pl.DataFrame:
    """symbol, known_at, score, item_id: a row for each item and symbol of the dataset that it is about, read once."""
    return study.once("news_items", lambda: _items(study))


def _items(study: Study) -> pl.DataFrame:
    spec = study.experiment.news
    if spec is None or not study.lake.manifests(NEWS, news_key(study)):
        return pl.DataFrame(schema=_ITEMS)
    mentions = Mentions(study.bars["symbol"].unique().to_list(), spec.aliases)
    news = study.lake.scan(NEWS, news_key(study)).select("item_id", "known_at", "symbols", "tags", "headline", "body").collect()
    text = pl.concat_str("headline", "body", separator=" ")
    about = [mentions.symbols(*row) for row in news.select("symbols", "tags", text.alias("text")).iter_rows()]
    assigned = news.select("item_id", "known_at").with_columns(pl.Series("symbol", about, dtype=pl.List(pl.String)))
    scores = study.lake.scan(NEWS_SCORES, scores_key(study, spec)).collect()
    rows = assigned.explode("symbol").drop_nulls("symbol").join(scores, on="item_id").select(list(_ITEMS))
    return rows.sort("known_at", "item_id", "symbol")
