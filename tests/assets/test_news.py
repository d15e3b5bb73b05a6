"""The assets of news and of its sentiment, materialized by themselves: with a source, and without one."""

from datetime import timedelta
from typing import Any

import dagster as dg
import msgspec
import pytest

from assets.features.sentiment import sentiment
from assets.market_data.bars import bars
from assets.market_data.news import news
from definitions import asset_selection
from resources.environments import resources
from tests.study.panels import START
from tidemill.config import Settings
from tidemill.domain.experiment import EngineSpec, Experiment, NewsSpec
from tidemill.experiments.files import to_text

MONTHS = {"dagster/asset_partition_range_start": "2021-01", "dagster/asset_partition_range_end": "2021-11"}


@pytest.fixture
def with_news(settings: Settings, experiment: Experiment) -> Experiment:
    symbols, words = ("AAA", "BBB", "CCC", "DDD"), ("gains", "falls", "meets", "wins")
    rows = [
        f"{symbols[hour % 4]},{(START + timedelta(hours=hour)).isoformat()},{symbols[hour % 4]} {words[hour % 3]}"
        for hour in range(0, 24 * 330, 5)
    ]
    path = settings.home.parent / "wire.csv"
    path.write_text("\n".join(["symbol,published_at,headline", *rows, "AAA,,no time"]) + "\n")
    return msgspec.structs.replace(experiment, news=NewsSpec(source=f"file:{path}"))


def materialized(
    experiment: Experiment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, dg.MetadataValue[Any]]]:
    """Asset → the metadata of its materialization."""
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    monkeypatch.setenv("TIDEMILL_HOME", str(settings.home))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", settings.postgres_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", settings.redis_url.reveal())
    config = {"resources": {"experiment": {"config": {"yaml_text": to_text(experiment)}}}}
    done = dg.materialize([bars, news, sentiment], resources=resources, run_config=config, tags=MONTHS)
    assert done.success
    return {
        event.asset_key.to_user_string(): dict(event.step_materialization_data.materialization.metadata)
        for event in done.get_asset_materialization_events()
        if event.asset_key is not None
    }


def test_the_assets_show_what_was_read_and_what_is_wrong_with_it(
    with_news: Experiment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = materialized(with_news, settings, monkeypatch)
    read, felt = made["market_data/news"], made["features/sentiment"]
    assert (read["rows"].value, read["quarantined: null"].value) == (1584, 1)
    assert "without a receipt" in str(read["notes"].value)
    assert "AAA" in str(read["table"].value)
    assert (felt["rows"].value, felt["symbols with news"].value, felt["classifier"].value) == (6 * 330, 4, "lexicon")
    assert str(felt["plot"].value).startswith("![plot](data:image/png;base64,")
    again = materialized(with_news, settings, monkeypatch)
    assert not again["market_data/news"]["worked"].value
    assert not again["features/sentiment"]["worked"].value
    assert again["features/sentiment"]["data version"] == felt["data version"]


def test_without_a_source_they_say_so_and_hold_nothing(
    experiment: Experiment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = materialized(experiment, settings, monkeypatch)
    for name in ("market_data/news", "features/sentiment"):
        assert "uses no news" in str(made[name]["notes"].value)
        assert "rows" not in made[name]
        assert not made[name]["worked"].value


def test_only_a_run_whose_experiment_names_a_source_has_them(with_news: Experiment, experiment: Experiment) -> None:
    own = {news.key, sentiment.key}
    assert own <= set(asset_selection(with_news))
    assert not own & set(asset_selection(experiment))
    silent = msgspec.structs.replace(experiment, engines=(*experiment.engines, EngineSpec(name="sentiment")))
    assert dg.AssetKey(["models", "sentiment"]) in asset_selection(silent)
    assert not own & set(asset_selection(silent))
