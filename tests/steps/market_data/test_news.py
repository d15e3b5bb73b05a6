"""News in a study: read once, scored once, known only when it was, and an engine without news keeps nobody from working."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tests.http_server import Answer, LoopbackServer, reset
from tests.study.panels import START, day_of, small_experiment
from tidemill.domain.errors import InputError, UnavailableError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, NewsSpec
from tidemill.evaluation.cross_validation import cross_validate
from tidemill.evaluation.search import search
from tidemill.features.expression import SENTIMENT
from tidemill.features.sentiment import sentiment
from tidemill.models.text.lexicon import Lexicon
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import list_gaps, sync_bars, sync_instruments
from tidemill.steps.market_data.news import sync_news
from tidemill.steps.models.alone import train_alone
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.performance.report import write_report
from tidemill.steps.performance.skill import evaluate_engines, evaluate_portfolio
from tidemill.steps.predictions.engines import predict
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.study.context import items_of, news_key
from tidemill.study.freshness import StepReport
from tidemill.study.metrics import engine_metrics
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import NEWS
from tidemill.study.workspace import Workspace

TEXTS = ("{0} beats estimates and raises its guidance", "{0} warns of losses", "Annual meeting of {0}", "Fraud probe at {0}")
FEATURES = FeatureSpec(sets=(), names=("ROC5", "STD10", "roc_10", "natr_14"))
DATA: dict[str, Callable[[Study], StepReport[Any]]] = {
    "bars": sync_bars, "news": sync_news, "sentiment": compute_sentiment, "features": compute_features,
}  # fmt: skip
AFTER: dict[str, Callable[[Study], StepReport[Any]]] = {
    "instruments": sync_instruments, "gaps": list_gaps, "labels": build_training_set,
    "momentum": lambda study: train(study, "momentum"), "sentiment engine": lambda study: train(study, "sentiment"),
    "predictions": predict, "ensemble": train_ensemble, "combined": predict_ensemble, "signals": make_signals,
    "backtest": run_backtests, "skill": evaluate_engines, "portfolio": evaluate_portfolio, "report": write_report,
}  # fmt: skip


def headlines(days: range, every: int = 3) -> pl.DataFrame:
    """One item every `every` hours about one of three symbols, received a minute after it was published."""
    hours = range(24 * days.start, 24 * days.stop, every)
    rows = [
        (
            ("AAA", "BBB", "CCC")[hour // every % 3],
            START + timedelta(hours=hour),
            START + timedelta(hours=hour, minutes=1),
            TEXTS[hour // every % 4].format(f"Number {hour}"),
        )
        for hour in hours
    ]
    time = pl.Datetime("us", "UTC")
    schema = {"symbol": pl.String, "published_at": time, "received_at": time, "headline": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wire.parquet"
    headlines(range(-5, 328)).write_parquet(path)
    return path


@pytest.fixture
def experiment(folder: Path, file: Path) -> Experiment:
    engines = (EngineSpec(name="momentum"), EngineSpec(name="sentiment"))
    return small_experiment(folder, features=FEATURES, engines=engines, news=NewsSpec(source=f"file:{file}"))


def run(
    workspace: Workspace, experiment: Experiment, steps: dict[str, Callable[[Study], StepReport[Any]]] = DATA
) -> tuple[Study, dict[str, StepReport[Any]]]:
    study = study_of(workspace, experiment)
    return study, {name: step(study) for name, step in steps.items()}


def expected(study: Study, items: pl.DataFrame) -> pl.DataFrame:
    """The columns computed at once from the items of a file."""
    known = items.select(
        "symbol", pl.col("received_at").alias("known_at"), pl.Series("score", Lexicon().score(items["headline"]))
    )
    return sentiment(study.bars, known, timedelta(days=1), half_life=5.0)[0]


def test_features_hold_what_was_known_at_each_bars_close(workspace: Workspace, experiment: Experiment) -> None:
    study, reports = run(workspace, experiment)
    assert study.features.names == (*FEATURES.names, *SENTIMENT)
    assert study.feature_frame.select("symbol", "open_time", *SENTIMENT).equals(expected(study, headlines(range(-5, 328))))
    assert reports["news"].rows == reports["sentiment"].facts.items_scored == 333 * 8
    assert reports["sentiment"].facts.coverage.covered_symbols == 3
    unknown = study.feature_frame.filter(pl.col("symbol") == "DDD")
    assert unknown["sentiment_mean"].is_nan().all()


def test_a_second_run_with_nothing_new_reads_and_scores_nothing(workspace: Workspace, experiment: Experiment) -> None:
    _, first = run(workspace, experiment)
    study, second = run(workspace, experiment)
    assert all(report.worked for report in first.values())
    assert not any(report.worked for report in second.values())
    assert {name: report.data_version for name, report in first.items()} == {
        name: report.data_version for name, report in second.items()
    }
    assert second["sentiment"].facts.items_scored == 0
    assert ("news_items" in vars(study)["_made"]) is False  # the items themselves were not even read


def test_a_new_day_of_news_and_bars_costs_one_month_and_gives_the_bits_of_the_whole(
    workspace: Workspace, experiment: Experiment, folder: Path, file: Path, panel: pl.DataFrame
) -> None:
    run(workspace, experiment)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    headlines(range(-5, 329)).write_parquet(file)
    study, reports = run(workspace, experiment)
    assert reports["news"].facts.imported.inserted == reports["sentiment"].facts.items_scored == 8
    assert reports["sentiment"].facts.coverage.months_computed == reports["features"].facts.months_computed == 1
    assert study.feature_frame.select("symbol", "open_time", *SENTIMENT).equals(expected(study, headlines(range(-5, 329))))


def test_news_that_arrives_late_changes_the_months_that_could_know_it_and_none_before(
    workspace: Workspace, experiment: Experiment, file: Path
) -> None:
    study, _ = run(workspace, experiment)
    before = study.feature_frame
    late = START + timedelta(days=200, hours=5)
    more = pl.DataFrame(
        {"symbol": ["EEE"], "published_at": [START], "received_at": [late], "headline": ["EEE wins a great award"]},
        schema=headlines(range(1)).schema,
    )
    pl.concat([headlines(range(-5, 328)), more]).write_parquet(file)
    study, reports = run(workspace, experiment)
    early = pl.col("open_time") + timedelta(days=1) < late
    assert study.feature_frame.filter(early).equals(before.filter(early))
    after = study.feature_frame.filter(~early & (pl.col("symbol") == "EEE"))
    assert after["sentiment_mean"][0] > 0.3
    assert after["sentiment_surprise"][0] > 0.5
    assert reports["features"].facts.months_kept > 0


def test_the_first_receipt_stays_when_a_file_is_written_again_with_later_ones(
    workspace: Workspace, experiment: Experiment, file: Path
) -> None:
    study, _ = run(workspace, experiment)
    before = study.feature_frame
    headlines(range(-5, 328)).with_columns(pl.col("received_at") + timedelta(days=30)).write_parquet(file)
    study, reports = run(workspace, experiment)
    assert study.feature_frame.equals(before)
    assert (reports["news"].facts.imported.inserted, reports["news"].facts.imported.duplicates) == (0, 333 * 8)


def test_what_another_database_does_not_hold_is_read_from_the_file_again(workspace: Workspace, experiment: Experiment) -> None:
    study, first = run(workspace, experiment)
    workspace.call(workspace.database.execute, "DELETE FROM news WHERE known_at > '2021-06-01'")
    again, second = run(workspace, experiment)
    assert (second["news"].rows, second["news"].data_version) == (first["news"].rows, first["news"].data_version)
    assert not any(report.worked for report in second.values())
    assert again.feature_frame.equals(study.feature_frame)


def test_bad_rows_stand_in_the_quarantine_with_their_lines(
    workspace: Workspace, experiment: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text("symbol,published_at,headline\nAAA,2021-03-01,Good gain\nAAA,soon,No time\nA/B,2021-03-01,Bad name\n,,\n")
    study, reports = run(workspace, msgspec.structs.replace(experiment, news=NewsSpec(source=f"file:{path}")))
    found = reports["news"].facts.imported
    assert (found.rows, found.inserted, found.quarantined, found.without_receipt) == (4, 1, 3, 1)
    assert found.reasons == {"unreadable": 1, "bad_symbol": 1, "null": 1}
    assert "without a receipt" in reports["news"].notes[0]
    kept = workspace.call(
        workspace.database.fetch, "SELECT source_line, reason FROM quarantine WHERE venue = $1 ORDER BY 1", news_key(study)
    )
    assert [tuple(row) for row in kept] == [(3, "unreadable"), (4, "bad_symbol"), (5, "null")]


def test_two_news_files_of_one_name_in_different_folders_do_not_mix(
    workspace: Workspace, experiment: Experiment, tmp_path: Path
) -> None:
    studies = []
    for folder, headline in (("one", "AAA gains"), ("other", "AAA loses")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "wire.csv"
        path.write_text(f"symbol,published_at,headline\nAAA,2021-03-01,{headline}\n")
        studies.append(study_of(workspace, msgspec.structs.replace(experiment, news=NewsSpec(source=f"file:{path}"))))
        sync_news(studies[-1])
    first, second = studies
    assert news_key(first) == "file.wire"
    assert news_key(second).startswith("file.wire-")
    for study, headline in ((first, "AAA gains"), (second, "AAA loses")):
        assert study.lake.scan(NEWS, news_key(study)).collect()["headline"].to_list() == [headline]


def test_names_and_marks_find_the_symbols_that_a_source_does_not_state(
    workspace: Workspace, experiment: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "names.csv"
    path.write_text("published_at,headline\n2021-03-01,Alpha Corp wins\n2021-03-02,$BBB falls\n2021-03-03,Weather fine\n")
    news = NewsSpec(source=f"file:{path}", aliases={"AAA": ("Alpha Corp",)})
    study, _ = run(workspace, msgspec.structs.replace(experiment, news=news))
    assert items_of(study)["symbol"].to_list() == ["AAA", "BBB"]


def test_without_news_nothing_is_read_and_the_steps_say_so(workspace: Workspace, folder: Path) -> None:
    study, reports = run(workspace, small_experiment(folder, features=FEATURES))
    for name in ("news", "sentiment"):
        assert (reports[name].worked, reports[name].rows) == (False, 0)
        assert "uses no news" in reports[name].notes[0]
    assert study.features.names == FEATURES.names
    with pytest.raises(InputError, match="uses no news"):
        news_key(study)


@pytest.mark.parametrize(
    "work",
    [
        lambda study: train_alone(study, "ridge"),
        lambda study: cross_validate(study, "momentum"),
        lambda study: search(study, "ridge", trials=1),
    ],
    ids=("training", "cross-validation", "search"),
)
def test_what_is_asked_for_on_its_own_first_reads_the_news_that_its_features_need(
    workspace: Workspace, experiment: Experiment, work: Callable[[Study], object]
) -> None:
    study = study_of(workspace, experiment)
    assert work(study)
    assert study.lake.manifests(NEWS, news_key(study))
    assert study.training_frame["sentiment_mean"].is_not_nan().any()


def test_features_before_their_news_are_refused_with_what_to_do(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    sync_bars(study)
    with pytest.raises(InputError, match="features/sentiment first"):
        compute_features(study)


def test_all_steps_work_with_news_and_the_sentiment_engine_has_its_row(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment, DATA | AFTER)
    frame = predictions_of(study, "sentiment")
    assert frame.filter(pl.col("symbol") == "AAA")["prediction"].is_finite().all()
    assert frame.filter(pl.col("symbol") == "DDD")["prediction"].is_null().all()
    assert {"ensemble", "momentum", "sentiment"} <= set(engine_metrics(study.lake, study.key)["book"])
    again = {name: step(study_of(workspace, experiment)) for name, step in (DATA | AFTER).items()}
    assert not [name for name, report in again.items() if report.worked]


def test_a_silent_engine_is_left_out_and_named_and_keeps_nobody_from_working(workspace: Workspace, folder: Path) -> None:
    engines = (EngineSpec(name="momentum"), EngineSpec(name="sentiment"))
    experiment = small_experiment(folder, features=FEATURES, engines=engines)
    study, reports = run(workspace, experiment, DATA | AFTER)
    assert predictions_of(study, "sentiment")["prediction"].is_null().all()
    assert any("sentiment" in note and "silent" in note for note in reports["sentiment engine"].notes)
    alone, ensemble = predictions_of(study, "momentum"), predictions_of(study, "ensemble")
    assert ensemble["prediction"].is_finite().all()
    order = [frame.select(pl.col("prediction").rank().over("open_time")).to_series() for frame in (alone, ensemble)]
    assert order[0].equals(order[1])


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    body = b"<rss><item><title>AAA beats estimates ($AAA)</title><guid>1</guid></item></rss>"
    async with LoopbackServer(lambda request: Answer(body=body)) as running:
        yield running


async def test_a_feed_is_asked_each_time_and_what_it_said_before_counts_when_it_is_down(
    workspace: Workspace, experiment: Experiment, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from tests.http_server import IMPATIENT
    from tidemill.market.news_feeds import NewsFeed

    monkeypatch.setattr("tidemill.study.context.open_news", lambda *_: NewsFeed(f"{server.url}/rss", options=IMPATIENT))
    study = study_of(workspace, msgspec.structs.replace(experiment, news=NewsSpec(source="feed:https://unused.example/rss")))
    server.always(reset)
    with pytest.raises(UnavailableError):
        await asyncio.to_thread(sync_news, study)
    server.behave()
    before = datetime.now(UTC)
    first = await asyncio.to_thread(sync_news, study)
    second = await asyncio.to_thread(sync_news, study)
    assert (first.rows, first.worked, second.rows, second.worked) == (1, True, 1, False)
    known = study.lake.scan(NEWS, news_key(study)).collect()["known_at"][0]
    assert before <= known <= datetime.now(UTC)
    server.always(reset)
    third = await asyncio.to_thread(sync_news, study)
    assert third.rows == 1
    assert "was not read" in third.notes[0]
