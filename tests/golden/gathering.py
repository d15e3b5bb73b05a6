"""What the run of an experiment came to, to the last digit: gathered by public doors, so that the figures outlive the rooms.

    python -m tests.golden.gathering [NAME …]

runs the experiments NAME.yaml (all of them without a name), each in a new home, and freezes their figures as NAME.json. That is
for figures that are meant to change; say in the commit which, and why.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tests.conftest import SHARED, remove_home
from tidemill import lab
from tidemill.config import Settings
from tidemill.models.artifact import Artifact, load
from tidemill.storage.content import content_version
from tidemill.storage.lake import Lake

GOLDEN = Path(__file__).resolve().parent
_SP500, _BINANCE = "sp500_daily_2013_2018/sp500_daily.parquet", "binance_spot_2024_1h/binance_spot_1h.parquet"
# Experiment → its panel below the shared data; None for the sample that is built in.
PANELS = {
    **dict.fromkeys(("sample_few", "sample", "all_engines")),
    **dict.fromkeys(("sp500_few", "sp500"), _SP500),
    **dict.fromkeys(("binance_few", "binance"), _BINANCE),
}
_COUNTED = ("trial", "trades", "groups", "trials", "trial_clusters", "pbo_trials", "pbo_blocks")
_SKILL = (
    *("ic", "ic_low", "ic_high", "rank_ic", "rank_ic_low", "rank_ic_high"),
    *("icir", "rank_icir", "t_stat", "hit_rate", "turnover"),
)
_MONEY = (
    *("sharpe_gross", "sharpe", "sharpe_low", "sharpe_high", "total_return", "annual_return", "max_drawdown"),
    *("fees", "slippage", "borrow", "portfolio_turnover"),
    *("deflated_sharpe", "deflated_sharpe_clustered", "expected_maximum_sharpe", "expected_maximum_sharpe_clustered"),
    *("pbo", "pbo_when_best"),
)
# Columns that count: others may come, and ids of models hold versions of code and libraries.
_FRAMES = {
    "signals": ("symbol", "open_time", "weight", "known_at"),
    "equity": ("time", "equity", "return", "gross_return"),
    "trades": (
        *("symbol", "side", "entry_time", "exit_time", "entry_price", "exit_price"),
        *("quantity", "fees", "profit"),
    ),
    "positions": ("time", "symbol", "quantity"),
}
_PREDICTIONS = ("symbol", "open_time", "engine", "prediction", "fold", "known_at")
_DATA: dict[str, tuple[str, ...] | None] = {
    "bars": ("symbol", "open_time", "open", "high", "low", "close", "volume", "known_at"),
    "features": None,
    "labels": ("symbol", "open_time", "label", "label_end_at"),
    "risk": ("symbol", "open_time", "volatility", "horizon_volatility", "drawdown"),
}

Figures = dict[str, Any]


def processor() -> list[str]:
    """Instruction sets that numpy found here: equal lists are what the frozen bits call the same kind of processor."""
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"]["found"]  # type: ignore[index,call-overload]
    return found


def place(name: str, folder: Path) -> Path:
    """The experiment as a file in `folder` that names the place of its panel."""
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8")
    file = folder / f"{name}.yaml"
    file.write_text(text.replace("PANEL", str(SHARED / (PANELS[name] or ""))), encoding="utf-8")
    return file


def run(file: Path) -> None:
    """`tidemill run` in the home that the environment names. CalledProcessError, with what it said, where it fails."""
    call = [sys.executable, "-P", "-m", "tidemill.cli.main", "run", "--experiment", str(file), "--json"]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, timeout=900)


def figures_of(file: Path, home: Path) -> Figures:
    """All figures of an experiment that was run in `home`, which is the one that the environment names.

    counts: numbers of things, and ids of trials. equity: at the end. portfolio, money, skill: floats of each book. ensemble:
    fold → engine → weight. bits: hashes of weights, frames and tables, the same only on the same kind of processor.
    """
    result, lake = lab.result(file), Lake(home / "lake")
    rows = {one.book: msgspec.structs.asdict(one) for one in result.books}
    predictions = {book: lab.predictions(file, engine=book) for book in rows}
    models = {book: _models(frame, home) for book, frame in predictions.items()}
    return {
        "processor": processor(),
        "counts": {book: _chosen(row, _COUNTED) for book, row in rows.items()},
        "equity": {book: _final_equity(lake, result.key, book) for book in result.metrics},
        "portfolio": result.metrics,
        "money": {book: _chosen(row, _MONEY) for book, row in rows.items()},
        "skill": {book: _chosen(row, _SKILL) for book, row in rows.items()},
        "ensemble": {fold: _weights(model) for fold, model in models["ensemble"].items()},
        "bits": {
            "models": {book: {fold: _hash(model) for fold, model in own.items()} for book, own in models.items()},
            "predictions": {book: version_of(frame, _PREDICTIONS) for book, frame in predictions.items()},
            "books": {book: _frames(lake, result.key, book) for book in result.metrics},
            "data": {table: found for table in _DATA for found in _tables(lake, table)},
        },
    }


def _chosen(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def version_of(frame: pl.DataFrame, columns: Sequence[str] | None) -> str:
    """Version of the content of these columns, all by name without them; the order of the rows does not count."""
    chosen = frame.select(columns or sorted(frame.columns))
    return content_version(chosen.sort(chosen.columns))


def _models(predictions: pl.DataFrame, home: Path) -> dict[str, Artifact]:
    """Fold → the model that predicted it."""
    pairs = predictions.select("fold", "model_id").unique().sort("fold").iter_rows()
    return {str(fold): load(home / "models" / "artifacts" / model) for fold, model in pairs}


def _hash(model: Artifact) -> str:
    """Of the weights alone: what else a model's own hash covers names code, libraries and data."""
    digest = hashlib.sha256(model.text.encode())
    for name, tensor in sorted(model.tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _weights(ensemble: Artifact) -> dict[str, float]:
    return dict(zip(ensemble.inputs.features, map(float, ensemble.tensors["weights"]), strict=True))


def _frames(lake: Lake, key: str, book: str) -> dict[str, str]:
    """Table of results → version of what it holds of a book; nothing signals the benchmark."""
    own = {table: columns for table, columns in _FRAMES.items() if lake.manifest(table, key, book) is not None}
    return {table: version_of(lake.scan(table, key, partitions=[book]).collect(), columns) for table, columns in own.items()}


def _final_equity(lake: Lake, key: str, book: str) -> float:
    return float(lake.scan("equity", key, partitions=[book]).sort("time").select("equity").collect()["equity"][-1])


def _tables(lake: Lake, table: str) -> list[str]:
    """Version of the table's one dataset in a home where one experiment was run; nothing where it has none."""
    return [version_of(lake.scan(table, dataset).collect(), _DATA[table]) for dataset in lake.datasets(table)]


def frozen(name: str) -> Figures:
    """The frozen figures of an experiment."""
    figures: Figures = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return figures


def freeze(name: str) -> None:
    """Run an experiment in a new home with servers of its own, and write its figures."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home", keeper_linger=0.0)
        os.environ |= {"TIDEMILL_HOME": str(settings.home), "TIDEMILL_KEEPER_LINGER": "0"}
        try:
            file = place(name, Path(folder))
            run(file)
            text = json.dumps(figures_of(file, settings.home), indent=1, sort_keys=True, allow_nan=False)
        finally:
            lab.close()
            remove_home(settings)
    (GOLDEN / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


def main() -> None:
    for name in sys.argv[1:] or PANELS:
        freeze(name)


if __name__ == "__main__":
    main()
