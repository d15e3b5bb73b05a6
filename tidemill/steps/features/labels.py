"""Labels, month by month: what did not change is not computed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import polars as pl
from msgspec import UNSET, UnsetType

from tidemill.provenance import fingerprint
from tidemill.study import code as code_of
from tidemill.study.freshness import StepReport, Table, drop_others, stale, stored
from tidemill.study.labelling import labelled
from tidemill.study.sources import suspected_actions
from tidemill.study.study import Study
from tidemill.study.tables import BARS, LABELS, month_of

_BARS = "bars_labelled"  # in a month's manifest: how many bars its labels were made from


class LabelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """label_horizon: in bars. What is read from the labels themselves is not there when there was no work."""

    label: str
    label_horizon: int
    labelled_rows: int | UnsetType = UNSET
    mean_label: float | UnsetType = UNSET
    label_deviation: float | UnsetType = UNSET


def build_training_set(study: Study) -> StepReport[LabelFacts]:
    """Labels of every bar. Computed again from the first month on whose bars, or bars that its labels end at, have changed; the
    features stay where they are.

    Months are written in order of time, so that whoever is stopped on the way leaves the changed ones stale.
    """
    table = Table(LABELS, study.labels_key)
    wanted = label_fingerprints(study)
    old = stale(study.lake, [table], wanted)
    if not old and study.lake.manifests(*table).keys() - wanted.keys():
        old = list(wanted)[:1]  # what began before a month that is gone may end in it
    if old:
        _compute(study, table, wanted, old)
        study.forget("training_frame")
    drop_others(study.lake, [table], wanted)
    return _labels_report(study, bool(old))


def label_fingerprints(study: Study) -> dict[str, str]:
    """Month → fingerprint of the rules and of the bars that its labels begin at, in order of time; the bars that they end at
    lie in later months, see `_from`.
    """
    bars = study.lake.manifests(BARS, study.dataset.bars_key)
    marks = suspected_actions(study).with_columns(month_of().alias("month"))
    rules = fingerprint(
        study.action_rows,
        study.experiment.label,
        study.experiment.dataset,
        study.label.source if study.label else "",
        code_of.labels(),
    )
    if study.label is not None:  # a function of one's own may look at all that came before
        rules = fingerprint(rules, {month: held.data_version for month, held in bars.items()}, marks.rows())
    marked = {str(month): rows.rows() for (month,), rows in marks.partition_by("month", as_dict=True).items()}
    chosen = (month for month in sorted(bars) if _selects(study, month))
    return {month: fingerprint(rules, bars[month].data_version, marked.get(month)) for month in chosen}


def _compute(study: Study, table: Table, wanted: Mapping[str, str], old: Sequence[str]) -> None:
    bars = study.lake.manifests(BARS, study.dataset.bars_key)
    months = _from(study, table, list(wanted), old[0])
    labels = _labels(study, months)
    parts = labels.with_columns(month_of().alias("__month")).partition_by("__month", as_dict=True, include_key=False)
    for month in months:
        part, facts = parts.get((month,), labels.clear()), {_BARS: bars[month].rows}
        study.lake.write(*table, month, part, fingerprint=wanted[month], metadata=facts)


def _from(study: Study, table: Table, months: Sequence[str], changed: str) -> Sequence[str]:
    """The months whose labels have to be computed when `changed` is the first one that is stale, to the newest one.

    A label ends at most `horizon` + 1 of its symbol's own bars later, so of what lies before it only so many bars matter, and
    only of symbols that have bars from there on. Where bars were taken away, everything is computed.
    """
    held, now = study.lake.manifests(*table), study.lake.manifests(BARS, study.dataset.bars_key)
    first = months.index(changed)
    shrunk = held.keys() - set(months) or any(
        held[at].metadata.get(_BARS, 0) > now[at].rows for at in held.keys() & set(months)
    )
    if study.label is not None or shrunk or not first:
        return months
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
    scan = study.lake.scan(BARS, study.dataset.bars_key, partitions=months).select("symbol")
    return not scan.filter(pl.col("symbol").is_in(symbols.implode())).head(1).collect().is_empty()


def _labels(study: Study, months: Sequence[str]) -> pl.DataFrame:
    """Labels of the bars of these months, to the newest one; none across what may be an unrecorded corporate action."""
    adjusted = study.adjusted_of(months)
    if adjusted.is_empty():
        adjusted = study.adjusted  # InputError where the selection holds no bar at all
    return labelled(study, adjusted)


def _labels_report(study: Study, worked: bool) -> StepReport[LabelFacts]:
    facts = LabelFacts(label=study.experiment.label.name, label_horizon=study.experiment.label.horizon)
    if worked:
        labels = study.lake.scan(LABELS, study.labels_key).select("label").collect()["label"].drop_nulls().to_numpy()
        facts = msgspec.structs.replace(facts, labelled_rows=len(labels))
        if len(labels):
            facts = msgspec.structs.replace(facts, mean_label=float(labels.mean()), label_deviation=float(labels.std()))
    manifests = study.lake.manifests(LABELS, study.labels_key)
    return stored(manifests, worked=worked, code_version=code_of.labels(), facts=facts)
