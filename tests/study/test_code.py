"""Code versions of what computes alone: what keeps, reads or tells makes nothing stale, a kernel what it computes."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.study.changed_code import change_line
from tidemill.strategies.registry import SHIPPED
from tidemill.study import code

VERSIONS: dict[str, Callable[[], str]] = {
    name: getattr(code, name)
    for name in (
        *("imports", "labels", "rejections", "backtests", "attribution", "ensemble"),
        *("skill", "selection", "drift", "risk", "sentiment", "search"),
        *("feature_proof", "prediction_proof", "signal_proof"),
    )
} | {name: partial(getattr(code, name), *SHIPPED.values()) for name in ("signals", "challenge")}


@pytest.fixture
def changed_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """`changed_by(module)`: the code versions that are others once a line of that module is another."""

    def change(module: str) -> set[str]:
        before = {name: version() for name, version in VERSIONS.items()}
        with monkeypatch.context() as patched:
            change_line(patched, module)
            return {name for name, version in VERSIONS.items() if version() != before[name]}

    return change


@pytest.mark.parametrize(
    "module",
    [
        "tidemill.market.news",
        "tidemill.market.news_feeds",
        "tidemill.market.binance",
        "tidemill.storage.lake",
        "tidemill.storage.postgres",
        "tidemill.study.workspace",
        "tidemill.study.study",
        "tidemill.reports.sentences",
        "tidemill.queries.results",
        "tidemill.user_modules.sandbox",
    ],
)
def test_what_keeps_reads_or_tells_makes_nothing_stale(changed_by: Callable[[str], set[str]], module: str) -> None:
    assert changed_by(module) == set()


@pytest.mark.parametrize(
    ("module", "stale"),
    [
        ("tidemill.matching.kernel", {"backtests", "challenge"}),
        ("tidemill.trading.decision", {"backtests", "challenge"}),
        ("tidemill.calendars", {"imports", "backtests", "challenge", "search", "signal_proof", "signals", "skill"}),
        ("tidemill.quality.flags", {"imports"}),
        ("tidemill.risk.volatility", {"risk"}),
        ("tidemill.metrics.attribution", {"attribution"}),
        ("tidemill.strategies.quantile", {"signals", "challenge"}),
        ("tidemill.strategies.neutral", {"signals", "challenge", "signal_proof"}),
        ("tidemill.study.book", {"signals", "backtests", "challenge", "signal_proof"}),
        ("tidemill.study.fitting", {"ensemble", "challenge", "prediction_proof", "search"}),
        ("tidemill.features.kernels.recursive", {"feature_proof", "challenge"}),  # a promotion steps its features
        ("tidemill.validation.causality.prove", {"feature_proof", "prediction_proof", "signal_proof"}),
        ("tidemill.study.labelling", {"labels", "prediction_proof"}),
        ("tidemill.quality.validity", {"rejections", "signals", "challenge"}),
        ("tidemill.validation.labels", {"labels", "prediction_proof"}),
    ],
)
def test_a_changed_line_makes_stale_what_it_computes(
    changed_by: Callable[[str], set[str]], module: str, stale: set[str]
) -> None:
    assert changed_by(module) == stale
