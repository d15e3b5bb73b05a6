"""The report as a reader meets it: the HTML is parsed, and its words are held against the numbers."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from tidemill.metrics.returns import performance_metrics
from tidemill.reports.html import render_report
from tidemill.reports.inputs import DataFacts, Provenance, ReportInputs
from tidemill.reports.numbers import interval, number, percent
from tidemill.reports.sentences import biases, verdict

VOID = {"meta", "br", "hr", "img", "link", "input"}
START = datetime(2020, 1, 1, tzinfo=UTC)


class Page(HTMLParser):
    """Checks that tags close in order, and keeps texts and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def curve(returns: np.ndarray) -> pl.DataFrame:
    times = pl.Series([START + timedelta(days=at) for at in range(len(returns))]).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"time": times, "equity": 1e6 * np.cumprod(1 + returns)})


DATA = DataFacts(
    bars=16_925,
    symbols=5,
    first_bar=START,
    last_bar=START + timedelta(days=900),
    calendars=("24/7", "XNYS"),
    rows_refused={"non_positive_price": 2, "null": 1},
    gaps=0,
    missing_bars=0,
    actions=3,
    flags={"price_jump": 4},
)
MADE_OF = Provenance(
    experiment="9f8c0a1d",
    seed=7,
    bars="b",
    features="f",
    feature_definitions="d",
    labels="l",
    engines={"ridge": "r"},
    libraries={"polars": "1"},
    written=START,
)


def inputs(daily: float = -0.0004, **given: Any) -> ReportInputs:
    random = np.random.default_rng(5)
    ours, theirs = random.normal(daily, 0.001, 900), random.normal(0.001, 0.01, 900)
    equity = curve(ours)
    skill = {"ic": 0.004, "rank_ic": 0.005, "t_stat": 0.7, "icir": 0.02, "hit_rate": 0.51, "turnover": 0.4}
    account = {"sharpe_gross": 0.1, "sharpe": -0.6, "annual_return": -0.1, "max_drawdown": -0.3}
    engine = {**skill, **account, "fees": 100_000.0, "slippage": 90_000.0, "borrow": 0.0}
    months = [f"{2020 + at // 12}-{at % 12 + 1:02d}" for at in range(30)]
    values: dict[str, Any] = {
        "title": "sample",
        "dataset": "five stocks, daily",
        "interval": "1d",
        "horizon": 5,
        "strategy": "quantile",
        "book": "ensemble",
        "benchmark": "equal weight",
        "symbols": 5,
        "equity": equity,
        "metrics": performance_metrics(ours),
        "benchmark_equity": curve(theirs),
        "benchmark_metrics": performance_metrics(theirs),
        "facts": {"capital": 1e6, "final_equity": equity["equity"][-1], "fees": 400_000.0, "slippage": 90_000.0, "borrow": 0.0},
        "engines": pl.DataFrame([{"book": name, **engine} for name in ("ensemble", "ridge")]),
        "ic_by_month": pl.DataFrame({"month": months, "ic": random.normal(0, 0.1, 30), "rank_ic": random.normal(0, 0.1, 30)}),
        "quantile_returns": pl.DataFrame({"quantile": [1, 2, 3, 4, 5], "mean_return": [-0.01, 0.0, 0.001, 0.002, 0.01]}),
        "folds": pl.DataFrame({"fold": [1, 2], "train_start": [START, START], "test_end": [START, START + timedelta(days=90)]}),
        "embargo": 60,
        "data": DATA,
        "survivorship": True,
        "biases": ("The five were chosen by hand.",),
        "notes": ("3 orders were cancelled.",),
        "provenance": MADE_OF,
    }
    return ReportInputs(**(values | given))


def test_a_strategy_that_loses_after_costs_is_said_to_lose_in_the_first_sentence() -> None:
    losing = inputs()
    sentences = verdict(losing)
    assert re.match(r"After all costs the ensemble portfolio lost \d+\.\d\s%", sentences[0])
    assert any("without them it would have made money, with them it loses" in text for text in sentences)
    assert any("worse than the benchmark" in text for text in sentences)
    assert any("cannot be told from zero" in text for text in sentences)
    page = Page(render_report(losing))
    assert sentences[0] in re.sub(r"\s+", " ", page.text).replace(" %", "\N{NO-BREAK SPACE}%")


def test_a_strategy_that_gains_is_said_to_gain_and_is_held_against_the_benchmark() -> None:
    sentences = verdict(inputs(daily=0.01))
    assert " made " in sentences[0]
    assert sentences[1].startswith("That is better than the benchmark")


def test_predictions_that_point_the_wrong_way_are_called_so() -> None:
    wrong = pl.DataFrame([{"book": "ensemble", "rank_ic": -0.05, "t_stat": -4.0}])
    assert any("the wrong way round" in text for text in verdict(inputs(engines=wrong)))


LEDGER = {
    "trials": 12,
    "trial_clusters": 4,
    "deflated_sharpe": 0.31,
    "deflated_sharpe_clustered": 0.42,
    "expected_maximum_sharpe": 1.7,
    "pbo": 0.61,
    "pbo_when_best": 0.5,
    "pbo_trials": 6,
    "pbo_blocks": 16,
    "counted_since": datetime(2024, 5, 6, tzinfo=UTC),
    "sharpe_low": -1.4,
    "sharpe_high": 0.2,
}


def counted(**changes: Any) -> ReportInputs:
    return inputs(
        engines=inputs().engines.with_columns(pl.lit(value).alias(name) for name, value in (LEDGER | changes).items())
    )


def test_the_number_of_trials_stands_beside_what_it_makes_of_the_sharpe_ratio() -> None:
    page = Page(render_report(counted())).text.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "12 trials counted, 4 of them different, PBO 61.0 %",
        "12 trials are counted on this data, the best of which would show a Sharpe ratio of about 1.70 by luck alone",
        "31.0 % (42.0 % if those that go together count as one): not enough to speak of skill",
        "The ledger counts 12 evaluations on this source since 2024-05-06".replace("The", "the"),
        "in 61.0 % of all ways to halve it (PBO, 16 blocks)",
        "−1.40 to 0.20",
    ):
        assert words in page, words


def test_a_high_deflated_ratio_is_called_skill_and_a_first_trial_the_only_one() -> None:
    sentences = verdict(counted(trials=1, trial_clusters=1, deflated_sharpe=0.97))
    assert any(
        text.startswith("This is the only trial counted") and text.endswith("enough to speak of skill.") for text in sentences
    )


def test_without_a_ledger_nothing_is_said_of_it() -> None:
    page = Page(render_report(inputs())).text
    assert "ledger" not in page
    assert "Deflated" not in page


def test_profit_is_taken_apart_and_refused_predictions_are_counted() -> None:
    parts = {
        "part": ["total", "costs", "market", "market", "symbols", "symbols", "engines"],
        "name": ["net", "fees", "market", "selection", "AAA", "BBB", "ridge"],
        "profit": [-400.0, -100.0, 700.0, -1000.0, 600.0, -1000.0, -400.0],
        "return": [-0.004, -0.001, 0.007, -0.01, 0.006, -0.01, -0.004],
    }
    rejected = {"book": ["ridge"], "why": ["its <features> are far from those of its training"], "predictions": [31]}
    made = inputs(attribution=pl.DataFrame(parts), rejections=pl.DataFrame(rejected))
    page = Page(render_report(made)).text
    assert (
        page.index("Where the profit came from") < page.index("By market") < page.index("By engine") < page.index("By symbol")
    )
    assert "selection −1,000" in page
    assert "its <features> are far from those of its training" in page
    assert "31" in page
    bare = Page(render_report(inputs())).text
    assert "Where the profit came from" not in bare
    assert "did not count" not in bare


def test_short_bars_are_told_of_the_bounce_between_bid_and_ask() -> None:
    assert any("bid and ask" in text for text in biases(inputs(interval="1h")))
    assert not any("bid and ask" in text for text in biases(inputs(interval="1d")))


def test_the_page_is_whole_offline_small_and_has_what_a_reader_needs() -> None:
    html = render_report(inputs())
    page = Page(html)
    assert page.open == []
    assert len(html) < 2_000_000
    for name, attributes in page.tags:
        assert name not in {"script", "link", "iframe", "img"}
        for attribute in ("src", "href", "xlink:href"):
            assert (attributes.get(attribute) or "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert [attributes["role"] for name, attributes in page.tags if name == "svg"] == ["img"] * 4
    assert all(attributes.get("scope") for name, attributes in page.tags if name == "th")
    for words in ("Drawdown", "Rank IC by month", "Return by quantile", "Sharpe before costs", "490,000", "16,925", "9f8c0a1d",
                  "60 bars of embargo", "2020-03-31", "3 orders were cancelled.", "The five were chosen by hand."):  # fmt: skip
        assert words in page.text, words


def test_it_has_colours_for_light_and_dark_and_no_fixed_ink_in_its_pictures() -> None:
    html = render_report(inputs())
    assert "prefers-color-scheme: dark" in html
    assert "currentColor" in html
    assert "#010203" not in html


def test_what_the_data_are_and_what_the_figures_were_made_of_is_said_in_words() -> None:
    text = re.sub(r"\s+", " ", Page(render_report(inputs())).text)
    for told in ("16,925", "24/7, XNYS", "rows refused 3", "quarantined: non positive price 2", "flagged: price jump 4"):
        assert told in text
    for told in ("feature definitions d", "code of ridge r", "polars 1", "seed 7"):
        assert told in text


def test_a_command_in_a_sentence_is_shown_as_code_and_what_is_in_it_is_escaped() -> None:
    html = render_report(inputs(notes=("Run `tidemill data repair <x>` again.",)))
    assert "Run <code>tidemill data repair &lt;x&gt;</code> again." in html


def test_the_same_inputs_give_the_same_page() -> None:
    assert render_report(inputs()) == render_report(inputs())


def test_names_from_outside_are_escaped_everywhere() -> None:
    evil = "<script>alert(1)</script>"
    frame = inputs().engines.with_columns(pl.lit(evil).alias("book"))
    html = render_report(
        inputs(
            title=evil,
            book=evil,
            benchmark=evil,
            engines=frame,
            notes=(evil,),
            biases=(evil,),
            provenance=msgspec.structs.replace(MADE_OF, engines={evil: evil}),
            data=msgspec.structs.replace(DATA, calendars=(evil,), flags={evil: 1}),
        )
    )
    assert "<script" not in html
    assert Page(html).text.count("alert(1)") >= 8


def test_what_is_missing_leaves_its_section_out_and_nothing_breaks() -> None:
    bare = inputs(
        ic_by_month=None,
        quantile_returns=None,
        folds=None,
        benchmark_equity=None,
        benchmark_metrics={},
        facts={},
        data=None,
        provenance=None,
        engines=pl.DataFrame({"book": pl.Series([], dtype=pl.String)}),
        metrics=performance_metrics([]),
    )
    text = Page(render_report(bare)).text
    assert "No engine was evaluated." in text
    assert "No costs were recorded." in text
    assert "has no defined return" in text
    empty = msgspec.structs.replace(bare, equity=bare.equity.clear())
    assert "nothing was traded" in Page(render_report(empty)).text


def test_a_ruined_account_and_a_single_row_can_be_drawn() -> None:
    ruined = pl.DataFrame({"time": curve(np.zeros(3))["time"], "equity": [1e6, 10.0, -5.0]})
    assert "<svg" in render_report(inputs(equity=ruined))
    assert "<svg" in render_report(inputs(equity=ruined[:1]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"symbols": 5}, "Only 5 symbols"),
        ({"symbols": 1}, "Only 1 symbol:"),
        ({"survivorship": True}, "only symbols that were still there at the end"),
        ({"survivorship": None}, "is not known"),
        ({}, "A short history"),
        ({}, "2 books were compared"),
        ({"metrics": {"sharpe": 4.2}}, "look for a leak"),
    ],
)
def test_biases_are_worked_out_from_the_inputs(given: dict[str, Any], words: str) -> None:
    assert any(words in text for text in biases(inputs(**given)))


def test_a_large_whole_universe_is_not_accused() -> None:
    found = biases(
        inputs(symbols=500, survivorship=False, biases=(), engines=inputs().engines[:1], equity=curve(np.zeros(2_000)))
    )
    assert len(found) == 1
    assert "impact" in found[0]


def test_a_result_with_suspected_actions_left_in_stands_beside() -> None:
    facts = inputs().facts | {"final_equity_with_suspected": 123_456.0}
    assert any("123,456" in text for text in verdict(inputs(facts=facts)))
    same = facts | {"final_equity_with_suspected": facts["final_equity"] + 0.1}
    assert not any("corporate actions" in text for text in verdict(inputs(facts=same)))


def test_numbers_are_written_for_people() -> None:
    assert (number(None), number(float("nan")), number(-1.234), number(0.0123)) == ("–", "–", "−1.23", "0.012")
    assert interval(-1.9, 0.0999) == "−1.90\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.10"
    assert interval(-0.0031, 0.012, 3) == "−0.003\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}0.012"
    assert (interval(None, 1.0), interval(0.0, float("nan"))) == ("–", "–")
    assert percent(-0.1234) == "−12.3\N{NO-BREAK SPACE}%"
    assert [percent(value).split()[0] for value in (-4.1e-4, 9.9e-4, 1e-3, -4e-5, 0)] == ["−0.04", "0.10", "0.1", "0.0", "0.0"]
