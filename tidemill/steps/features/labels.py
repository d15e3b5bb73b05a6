"""Labels, month by month: what did not change is not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from tidemill.provenance import fingerprint, source_version
from tidemill.study.freshness import StepReport
from tidemill.study.study import Study
from tidemill.study.tables import LABELS, month_of
from tidemill.validation.custom_labels import custom_labels
from tidemill.validation.labels import forward_return


class Bars(NamedTuple):
    """Of the bars of a month: what its labels were built from."""

    version: str
    rows: int


def build_training_set(study: Study) -> StepReport:
    """Labels of every bar. Computed again from the first month on whose bars, or bars that its labels end at, have changed; the
    features stay where they are.
    """
    bars = study.lake.manifests("bars", study.dataset.bars_key)
    rules = fingerprint(
        study.adjustments.sort("symbol", "ex_time", "kind").rows(),
        study.experiment.label,
        study.experiment.dataset,
        study.label.source if study.label else "",
        source_version("tidemill.validation.labels", "tidemill.validation.custom_labels", "tidemill.market.adjustments"),
    )
    print_ = fingerprint(rules, {month: manifest.data_version for month, manifest in bars.items()})
    have = study.lake.manifests(LABELS, study.labels_key)
    # The newest month is written last, so it says of all of them what they were built from.
    worked = not have or have[max(have)].metadata.get("built") != print_
    if worked:
        now = {month: Bars(held.data_version, held.rows) for month, held in bars.items()}
        known = {month: Bars(*held.metadata["bars"]) for month, held in have.items() if held.metadata.get("rules") == rules}
        months = stale_label_months(study, now, known)
        labels = _labels(study, months)
        parts = labels.with_columns(month_of().alias("__month")).partition_by("__month", as_dict=True, include_key=False)
        for month in months:
            if (part := parts.get((month,))) is not None:
                facts = {"built": print_, "rules": rules, "bars": list(now[month])}
                study.lake.write(LABELS, study.labels_key, month, part, metadata=facts)
        for gone in (have.keys() & set(months) | have.keys() - bars.keys()) - {str(month) for (month,) in parts}:
            study.lake.drop(LABELS, study.labels_key, gone)
    return _labels_report(study, worked)


def stale_label_months(study: Study, bars: Mapping[str, Bars], known: Mapping[str, Bars]) -> list[str]:
    """The months whose labels have to be computed, to the newest one; all of them for a label of a module.

    bars: month → version and rows of its bars now. known: the same, of what its stored labels were built from. A label ends at
    most `horizon` + 1 of its symbol's own bars later, so of what lies before the first changed month only so many bars matter,
    and only of symbols that have bars from there on. Bars are never taken away; should it happen, everything is computed.
    """
    months = sorted(bars)
    changed = [month for month in months if _selects(study, month) and known.get(month) != bars[month]]
    shrunk = known.keys() - bars.keys() or any(held.rows > bars[month].rows for month, held in known.items())
    if study.label is not None or shrunk or not known:
        return months
    # The newest month is always among them: it says what all were built from.
    first = months.index(min([*changed[:1], max(known)]))
    symbols = study.bars_of(months[first:])["symbol"].unique()
    found, needed = pl.DataFrame(schema={"symbol": pl.String}), study.experiment.label.horizon + 1
    while first:
        counts = found.group_by("symbol").len().filter(pl.col("len") >= needed)
        short = symbols.filter(~symbols.is_in(counts["symbol"].implode()))
        if short.is_empty() or not _have_bars(study, months[:first], short):
            break
        first -= 1
        found = pl.concat([found, study.bars_of(months[first : first + 1]).select("symbol")])
    return months[first:]


def _selects(study: Study, month: str) -> bool:
    """Whether the experiment's dates touch a month."""
    start, end = study.start, study.end
    return (start is None or month >= f"{start:%Y-%m}") and (end is None or month <= f"{end:%Y-%m}")


def _have_bars(study: Study, months: Sequence[str], symbols: pl.Series) -> bool:
    scan = study.lake.scan("bars", study.dataset.bars_key, partitions=months).select("symbol")
    return not scan.filter(pl.col("symbol").is_in(symbols.implode())).head(1).collect().is_empty()


def _labels(study: Study, months: Sequence[str]) -> pl.DataFrame:
    """Labels of the bars of these months, to the newest one."""
    adjusted = study.adjusted_of(months)
    if adjusted.is_empty():
        adjusted = study.adjusted  # InputError where the selection holds no bar at all
    if study.label is None:
        return forward_return(adjusted, study.experiment.label.horizon, study.dataset.interval)
    return custom_labels(adjusted, study.label)


def _labels_report(study: Study, worked: bool) -> StepReport:
    manifests = study.lake.manifests(LABELS, study.labels_key)
    facts: dict[str, object] = {"label": study.experiment.label.name, "horizon in bars": study.experiment.label.horizon}
    if worked:
        labels = study.lake.scan(LABELS, study.labels_key).select("label").collect()["label"].drop_nulls().to_numpy()
        facts["labelled rows"] = len(labels)
        if len(labels):
            facts |= {"mean label": float(labels.mean()), "standard deviation of labels": float(labels.std())}
    return StepReport(
        worked=worked,
        rows=sum(manifest.rows for manifest in manifests.values()),
        symbols=max((manifest.symbols for manifest in manifests.values()), default=0),
        start=min((manifest.start for manifest in manifests.values() if manifest.start), default=None),
        end=max((manifest.end for manifest in manifests.values() if manifest.end), default=None),
        bytes=sum(manifest.bytes for manifest in manifests.values()),
        data_version=fingerprint({month: manifest.data_version for month, manifest in manifests.items()}),
        code_version=source_version("tidemill.validation.labels"),
        facts=facts,
    )
