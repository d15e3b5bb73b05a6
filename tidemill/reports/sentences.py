"""The sentences of the report: what happened, in the words of somebody who has nothing to sell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill.domain.intervals import Interval
from tidemill.metrics.suspicion import FEW_SYMBOLS, TOO_GOOD_IC, TOO_GOOD_SHARPE
from tidemill.reports.numbers import _NOTHING, _known, interval, number, percent, whole

if TYPE_CHECKING:
    from tidemill.reports.inputs import ReportInputs

_SHORT_YEARS = 3.0
_SKILL = 0.95  # deflated Sharpe ratio from which skill is spoken of
_A_DAY = 86_400
_WHOLE = 0.99  # share of the benchmark's capital from which nothing is said of the rest
_SURE = 2.0  # |t| above which a mean is called different from zero


class Headline(NamedTuple):
    label: str
    value: str
    about: str


def _moved(change: float) -> str:
    if abs(change) < _NOTHING:
        return "ended where it began"
    return f"made {percent(change)}" if change > 0 else f"lost {percent(-change)}"


def _span(inputs: ReportInputs) -> tuple[datetime, datetime]:
    times = inputs.equity.get_column("time")
    return times[0], times[-1]


def years(inputs: ReportInputs) -> float:
    """Length of the out-of-sample period."""
    if inputs.equity.height < 2:
        return 0.0
    start, end = _span(inputs)
    return (end - start).total_seconds() / (365.25 * 86_400)


def verdict(inputs: ReportInputs) -> list[str]:
    """The first paragraph: who is missing, the result after costs, the benchmark, what kept the book from its positions, what
    costs took, and whether the signal is there at all.
    """
    if inputs.equity.is_empty():
        return [*inputs.missing, "There is no result: nothing was traded."]
    result, rest = (_result, _versus), (_before_costs, _signal, _skill, _suspected)
    before, after = ([text for text in (sentence(inputs) for sentence in some) if text] for some in (result, rest))
    return [*inputs.missing, *before, *inputs.stopped, *after]


def _result(inputs: ReportInputs) -> str:
    start, end = _span(inputs)
    total = inputs.metrics.get("total_return")
    what = _moved(total) if total is not None else "has no defined return"
    return f"After all costs the {inputs.book} portfolio {what} between {start:%Y-%m-%d} and {end:%Y-%m-%d}, out of sample."


def _versus(inputs: ReportInputs) -> str:
    ours, theirs = inputs.metrics.get("total_return"), inputs.benchmark_metrics.get("total_return")
    if ours is None or theirs is None:
        return ""
    better = "That is better than" if ours > theirs else "That is worse than"
    sharpes = (inputs.metrics.get("sharpe"), inputs.benchmark_metrics.get("sharpe"))
    risk = f" Sharpe ratios: {number(sharpes[0])} against {number(sharpes[1])}." if None not in sharpes else ""
    return f"{better} the benchmark ({inputs.benchmark}), which {_moved(theirs)}.{risk}{_uninvested(inputs)}"


def _uninvested(inputs: ReportInputs) -> str:
    """Cash moves with no market: a benchmark that is mostly cash is easily beaten, or looks calm."""
    invested = inputs.benchmark_invested
    if invested is None or invested >= _WHOLE:
        return ""
    return (
        f" Only {percent(invested)} of the benchmark's capital was invested: it is bought once, and what is not filled then "
        "(an order takes up to 10 % of a bar's volume) stays cash."
    )


def total_costs(facts: Mapping[str, Any]) -> float:
    """Fees, slippage and borrow together; NaN if one of them is not known."""
    parts = [facts.get(name) for name in ("fees", "slippage", "borrow")]
    return sum(part if _known(part) else math.nan for part in parts)


def _before_costs(inputs: ReportInputs) -> str:
    facts = inputs.facts
    needed = ("fees", "slippage", "borrow", "capital", "final_equity")
    if not all(_known(facts.get(name)) for name in needed):
        return ""
    costs = total_costs(facts)
    net = facts["final_equity"] - facts["capital"]
    text = f"Costs took {whole(costs)} {inputs.currency}, which is {percent(costs / facts['capital'])} of the capital"
    if net < 0.0 < net + costs:
        return f"{text}: without them it would have made money, with them it loses."
    return f"{text}."


def _own(inputs: ReportInputs) -> dict[str, Any]:
    """The row of the book that the report is about; empty when there is none."""
    rows = [row for row in inputs.engines.iter_rows(named=True) if row.get("book") == inputs.book]
    return rows[0] if rows else {}


def _signal(inputs: ReportInputs) -> str:
    row = _own(inputs)
    rank_ic, t = row.get("rank_ic"), row.get("t_stat")
    if not _known(rank_ic):
        return ""
    text = f"Its predictions have a mean rank IC of {number(rank_ic)}"
    if not _known(t):
        return f"{text}."
    if abs(t) < _SURE:
        return f"{text} (t = {number(t, 1)}), which cannot be told from zero."
    return f"{text} (t = {number(t, 1)}), which is {'unlikely to be chance alone' if rank_ic > 0 else 'the wrong way round'}."


def _skill(inputs: ReportInputs) -> str:
    """What is left of the Sharpe ratio when the number of trials is taken into account."""
    row = _own(inputs)
    deflated, clustered, trials = (row.get(name) for name in ("deflated_sharpe", "deflated_sharpe_clustered", "trials"))
    if not (_known(deflated) and _known(trials)):
        return ""
    level = row.get("expected_maximum_sharpe")
    chance = f", the best of which would show a Sharpe ratio of about {number(level)} by luck alone" if trials > 1 else ""
    tried = "This is the only trial counted on this data" if trials == 1 else f"{whole(trials)} trials are counted on this data"
    other = f" ({percent(clustered)} if those that go together count as one)" if _known(clustered) and trials > 1 else ""
    said = "enough to speak of skill" if deflated >= _SKILL else "not enough to speak of skill, for which 95 % is usually asked"
    above = "zero" if trials == 1 else "that"
    return (
        f"{tried}{chance}. The probability that the true Sharpe ratio is above {above} is {percent(deflated)}{other}: {said}."
    )


def _suspected(inputs: ReportInputs) -> str:
    other, own = inputs.facts.get("final_equity_with_suspected"), inputs.facts.get("final_equity")
    if not (_known(other) and _known(own)) or whole(other) == whole(own):
        return ""
    return (
        "Moves that look like unrecorded corporate actions are left out of profit and loss; "
        f"with them the final equity is {whole(other)} instead of {whole(own)} {inputs.currency}."
    )


def headline(inputs: ReportInputs) -> list[Headline]:
    """Four figures for the top of the page."""
    facts, metrics = inputs.facts, inputs.metrics
    return [
        Headline(
            "Final equity", f"{whole(facts.get('final_equity'))} {inputs.currency}", f"from {whole(facts.get('capital'))}"
        ),
        Headline("Return a year", percent(metrics.get("annual_return")), "after costs"),
        Headline("Sharpe ratio", number(metrics.get("sharpe")), _sharpe_words(_own(inputs))),
        Headline("Largest drawdown", percent(metrics.get("max_drawdown")), "from a high to the low after it"),
    ]


def _sharpe_words(row: Mapping[str, Any]) -> str:
    span = interval(row.get("sharpe_low"), row.get("sharpe_high"))
    return "after costs, annualised" if span == "–" else f"after costs; 95 % interval {span}"


def biases(inputs: ReportInputs) -> list[str]:
    """What makes these numbers look better or surer than they are: what is stated, then what can be computed."""
    found = [
        *inputs.biases,
        *_survivorship(inputs),
        *_smallness(inputs),
        *_selection(inputs),
        *_bounce(inputs),
        *_suspicion(inputs),
    ]
    found.append(
        "Fills assume that the next open can be had at a fixed slippage; an order's own impact on the price is not modelled."
    )
    return list(dict.fromkeys(found))


def _survivorship(inputs: ReportInputs) -> list[str]:
    if inputs.survivorship is None:
        return ["Whether the universe leaves out what was delisted is not known; if so, returns look too good."]
    if inputs.survivorship:
        return ["Survivorship: the universe holds only symbols that were still there at the end, so returns look too good."]
    return []


def _smallness(inputs: ReportInputs) -> list[str]:
    found = []
    if inputs.symbols < FEW_SYMBOLS:
        one = inputs.symbols == 1
        found.append(
            f"Only {inputs.symbols} symbol{'' if one else 's'}: one of them can decide the outcome, and coefficients across so "
            "few are noisy. Nothing here says how the engines would do on a real universe."
        )
    length = years(inputs)
    if length < _SHORT_YEARS:
        found.append(
            f"A short history: {number(length, 1)} years out of sample. A Sharpe ratio over that time is uncertain by about "
            f"±{number(2 / math.sqrt(max(length, 1 / 12)), 1)}."
        )
    return found


def _selection(inputs: ReportInputs) -> list[str]:
    count, row = inputs.engines.height, _own(inputs)
    if _known(row.get("trials")):
        return _counted(row)
    if count < 2:
        return []
    return [f"{count} books were compared on the same data; the best of them looks better than it is."]


def _counted(row: Mapping[str, Any]) -> list[str]:
    since = row.get("counted_since")
    when = f" since {since:%Y-%m-%d}" if isinstance(since, datetime) else ""
    many = "" if row["trials"] == 1 else "s"
    found = [
        f"Selection: the ledger counts {whole(row['trials'])} evaluation{many} on this source{when}. What was tried before "
        "that, or outside of the platform, is not counted and makes every figure here look better than it is."
    ]
    if _known(row.get("pbo")):
        found.append(
            f"Of {whole(row['pbo_trials'])} trials over the same time, the one that was best in one half of it was not above "
            f"the median in the other half in {percent(row['pbo'])} of all ways to halve it (PBO, {whole(row['pbo_blocks'])} "
            "blocks); pure luck gives about 50 %. Where the trials are alike, this says nothing of skill."
        )
    return found


def _bounce(inputs: ReportInputs) -> list[str]:
    if Interval.parse(inputs.interval).seconds >= _A_DAY:
        return []
    return [
        "Bars shorter than a day: part of what predicts the next bar is the bounce between bid and ask, which counts in IC and "
        "t and cannot be earned; the Sharpe ratio after costs is the figure to look at."
    ]


def _suspicion(inputs: ReportInputs) -> list[str]:
    sharpe = inputs.metrics.get("sharpe")
    coefficients = [row.get("rank_ic") for row in inputs.engines.iter_rows(named=True)]
    found = []
    if sharpe is not None and sharpe > TOO_GOOD_SHARPE:
        found.append(f"A Sharpe ratio of {number(sharpe)} is too good to be taken as it is: look for a leak first.")
    if any(_known(value) and value > TOO_GOOD_IC for value in coefficients) and inputs.symbols >= FEW_SYMBOLS:
        found.append(f"A rank IC above {TOO_GOOD_IC} is too good to be taken as it is: look for a leak first.")
    return found
