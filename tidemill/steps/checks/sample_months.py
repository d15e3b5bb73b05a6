"""Which months of a dataset its definitions are proven on."""

from __future__ import annotations

from tidemill.study.study import Study
from tidemill.study.tables import BARS

# Bar times of the sample.
SAMPLE = 400


def sample_months(study: Study) -> tuple[str, ...]:
    """The first months of the dataset that hold SAMPLE bar times; never the newest one, which still grows."""
    manifests = sorted(study.lake.manifests(BARS, study.dataset.bars_key).items())
    chosen: list[str] = []
    times = 0.0
    for month, manifest in manifests[:-1] or manifests:
        if times >= SAMPLE:
            break
        if study.start is not None and month < f"{study.start:%Y-%m}":
            continue
        chosen.append(month)
        times += manifest.rows / max(manifest.symbols, 1)
    return tuple(chosen)
