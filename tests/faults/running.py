"""A tiny experiment, its run step by step without Dagster, and everything that a home holds after it, to the digit.

This is the one place of the fault tests that knows where steps, repair and their names are.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.config import Secret, Settings
from tidemill.domain.experiment import (
    DatasetSpec,
    EngineSpec,
    Experiment,
    FeatureSpec,
    LabelSpec,
    NewsSpec,
    RiskSpec,
    SplitSpec,
)
from tidemill.maintenance.repair import repair as repair_home
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.regime import compute_regime
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import list_gaps, sync_bars, sync_instruments
from tidemill.steps.market_data.fear_greed import sync_fear_greed
from tidemill.steps.market_data.news import sync_news
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.models.risk import forecast_risk, train_risk
from tidemill.steps.performance.drift import measure_drift
from tidemill.steps.performance.report import write_report
from tidemill.steps.performance.skill import evaluate_engines, evaluate_portfolio
from tidemill.steps.predictions.engines import predict
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.storage.content import content_version
from tidemill.storage.lake import Lake
from tidemill.study.freshness import StepReport
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import open_workspace

Step = Callable[[Study], StepReport[Any]]

# The graph in its order, as `definitions.py` has it for this experiment.
STEPS: dict[str, Step] = {
    "bars": sync_bars,
    "instruments": sync_instruments,
    "gaps": list_gaps,
    "index": sync_fear_greed,
    "news": sync_news,
    "sentiment": compute_sentiment,
    "features": compute_features,
    "regime": compute_regime,
    "labels": build_training_set,
    "momentum": lambda study: train(study, "momentum"),
    "ridge": lambda study: train(study, "ridge"),
    "risk model": train_risk,
    "predictions": predict,
    "ensemble": train_ensemble,
    "combined": predict_ensemble,
    "risk": forecast_risk,
    "signals": make_signals,
    "backtest": run_backtests,
    "skill": evaluate_engines,
    "portfolio": evaluate_portfolio,
    "drift": measure_drift,
    "report": write_report,
}
ORDER = tuple(STEPS)

_START = datetime(2021, 1, 25, tzinfo=UTC)
_HOURS = 6
_BARS = 340
_SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
# What says when, how often or where something was written, and not what was.
_TIMES = frozenset(
    {
        "recorded_at",
        "changed_at",
        "flagged_at",
        "counted_at",
        "created_at",
        "claimed_at",
        "found_at",
        "filled_at",
        "first_run_at",
        "last_run_at",
        "made_at",
        "superseded_at",
        "at",
        "since",
    }
)
_BOOKKEEPING = _TIMES | {"path", "id", "version"}
# Tables of which a manifest's facts say from what and how often the part was written, not what came of it.
_BOOKKEPT = {"imports", "bars", "labels", "predictions", "news_imports", "sentiment_inputs"}
_UNREADABLE = "unreadable"
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2})?(\.\d+)?(\+00:00)?( UTC)?")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run takes place: a home of its own with a database of its own, the panel that all of them read.

    context: whether news and the Fear & Greed Index are read beside it.
    """

    home: str
    postgres: str
    redis: str
    panel: str
    context: bool = False

    @property
    def settings(self) -> Settings:
        return Settings(home=Path(self.home), postgres_dsn=Secret(self.postgres), redis_url=Secret(self.redis), connections=4)

    @property
    def environment(self) -> dict[str, str]:
        """The same settings for a command."""
        names = {"HOME": self.home, "POSTGRES_DSN": self.postgres, "REDIS_URL": self.redis, "CONNECTIONS": "4"}
        return {f"TIDEMILL_{name}": value for name, value in names.items()}

    @property
    def experiment(self) -> Experiment:
        tiny = tiny_experiment(Path(self.panel))
        return with_context(tiny, Path(self.panel)) if self.context else tiny


def tiny_experiment(panel: Path) -> Experiment:
    """Two engines, skill weights, risk and regimes on 340 bars in four months: three folds and at most 120 writes."""
    return Experiment(
        name="tiny",
        dataset=DatasetSpec(source=f"file:{panel}", interval=f"{_HOURS}h"),
        features=FeatureSpec(sets=(), names=("ROC5", "STD10", "rsi_14", "roc_10", "natr_14")),
        label=LabelSpec(horizon=3),
        engines=(EngineSpec(name="momentum"), EngineSpec(name="ridge")),
        risk=RiskSpec(least=100),
        splits=SplitSpec(train=200, test=60, min_folds=3),
    )


def with_context(experiment: Experiment, panel: Path) -> Experiment:
    """The experiment with news and the Fear & Greed Index beside its bars."""
    features = msgspec.structs.replace(experiment.features, fear_greed=f"file:{index_file(panel)}")
    return msgspec.structs.replace(experiment, features=features, news=NewsSpec(source=f"file:{news_file(panel)}"))


def write_panel(folder: Path) -> None:
    """Bars of six hours of four symbols, with a hole, a bar that is refused and a price that halves for good.

    Beside the folder lie the file of the day that comes next, the news and the Fear & Greed Index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bars = pl.concat([_walk(number, symbol) for number, symbol in enumerate(_SYMBOLS)])
    number = pl.int_range(pl.len()).over("symbol")
    hole = (pl.col("symbol") == "BBB") & number.is_between(150, 153)
    halved = (pl.col("symbol") == "CCC") & (number >= 260)
    refused = (pl.col("symbol") == "AAA") & (number == 100)
    prices = ("open", "high", "low", "close")
    shown = bars.with_columns(pl.when(halved).then(pl.col(name) / 2).otherwise(pl.col(name)).alias(name) for name in prices)
    shown = shown.with_columns(pl.when(refused).then(pl.col("low") / 2).otherwise(pl.col("high")).alias("high")).filter(~hole)
    next_day = pl.col("open_time") >= _START + timedelta(hours=_HOURS * (_BARS - 4))
    shown.filter(~next_day).write_parquet(folder / "bars.parquet")
    shown.filter(next_day).write_parquet(next_day_file(folder))
    _write_context(folder)


def next_day_file(folder: Path) -> Path:
    """Where the file with the next day's bars lies; moved into the folder it is found by the next run."""
    return folder.with_name("next_day.parquet")


def news_file(panel: Path) -> Path:
    return panel.with_name("wire.csv")


def index_file(panel: Path) -> Path:
    return panel.with_name("index.csv")


def _write_context(panel: Path) -> None:
    """News of every second day and a value of every day."""
    days = [_START + timedelta(days=day) for day in range(_BARS * _HOURS // 24)]
    said = ("gains on strong growth", "warns of losses", "holds its annual meeting")
    items = [
        f"{_SYMBOLS[at % 3]},{day:%Y-%m-%d},{_SYMBOLS[at % 3]} {said[at % 5 % 3]} {at}" for at, day in enumerate(days[::2])
    ]
    news_file(panel).write_text("symbol,published_at,headline\n" + "\n".join(items) + "\n")
    values = [f"{day:%Y-%m-%d},{at * 7 % 101}" for at, day in enumerate(days)]
    index_file(panel).write_text("date,value\n" + "\n".join(values) + "\n")


def _walk(number: int, symbol: str) -> pl.DataFrame:
    random = np.random.default_rng((11, number))
    close = 50.0 * np.exp(np.cumsum(random.normal(0.0003, 0.02, _BARS)))
    opened = close * np.exp(random.normal(0.0, 0.004, _BARS))
    span = np.abs(random.normal(0.0, 0.004, _BARS))
    return pl.DataFrame(
        {
            "symbol": [symbol] * _BARS,
            "open_time": [_START + timedelta(hours=_HOURS * bar) for bar in range(_BARS)],
            "open": opened.round(4),
            "high": (np.maximum(opened, close) * (1.0 + span)).round(4) + 0.0001,
            "low": (np.minimum(opened, close) * (1.0 - span)).round(4) - 0.0001,
            "close": close.round(4),
            "volume": random.integers(100_000, 900_000, _BARS).astype(np.float64),
        }
    )


def run(place: Place, steps: Sequence[str] = ORDER) -> list[str]:
    """Run these steps of the graph; the names of those that had work to do."""
    with open_workspace(place.settings) as workspace:
        study = study_of(workspace, place.experiment)
        return [name for name in steps if STEPS[name](study).worked]


def repair(place: Place) -> None:
    """What `tidemill data repair` does."""
    with open_workspace(place.settings) as workspace:
        repair_home(workspace)


def figures(place: Place) -> dict[str, str]:
    """Everything that a finished home and its database hold, name → value or digest, without times and places."""
    home = Path(place.home)
    return {
        **_lake_figures(Lake(home / "lake")),
        **_model_figures(home / "models"),
        **_report_figures(home),
        **asyncio.run(_database_figures(place.postgres)),
    }


def _lake_figures(lake: Lake) -> dict[str, str]:
    found = {}
    for table in lake.tables():
        for dataset in lake.datasets(table):
            for part, manifest in lake.manifests(table, dataset).items():
                rows = _rows([_file(lake, table, dataset, part, name) for name in manifest.files])
                steady = rows.drop(_TIMES, strict=False)
                name = f"lake/{table}/{dataset}/{part}"
                found[name] = content_version(steady)
                found[f"{name}: version"] = manifest.data_version if steady.width == rows.width else "dated"
                if table == "metrics":
                    found |= {f"{name}: {cell}": value for cell, value in _cells(rows)}
                if table not in _BOOKKEPT:
                    found[f"{name}: facts"] = _digest(msgspec.json.encode(manifest.metadata))
    return found


def _rows(files: Sequence[Path]) -> pl.DataFrame:
    try:
        return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])
    except (pl.exceptions.PolarsError, OSError):
        return pl.DataFrame({_UNREADABLE: []})


def _file(lake: Lake, table: str, dataset: str, part: str, name: str) -> Path:
    return lake.root / table / f"dataset={dataset}" / f"partition={part}" / name


def _cells(rows: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Each number of a table by its row's first column, to the digit."""
    for row in rows.to_dicts():
        first = next(iter(row.values()))
        yield from ((f"{first}.{name}", repr(value)) for name, value in row.items() if isinstance(value, float))


def _model_figures(models: Path) -> dict[str, str]:
    """Which artifact serves which fold, and the weights of each."""
    found = {}
    for path in sorted((models / "index").glob("*.json")):
        for fold in _folds(path):
            name = f"models/{path.stem}/{fold['fold']}"
            folder = models / "artifacts" / fold["model_id"]
            found[name] = fold["model_id"]
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            found |= {f"{name}: {file.name}": _digest(_undated(file)) for file in files}
    return found


def _folds(index: Path) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = msgspec.json.decode(index.read_bytes())["folds"]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [{"fold": _UNREADABLE, "model_id": _UNREADABLE}]
    return found


def _undated(file: Path) -> bytes:
    """The bytes of weights; a manifest without what it says of its origin."""
    content = file.read_bytes()
    if file.suffix != ".json":
        return content
    try:
        stated = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content
    stated.get("manifest", stated).pop("origin", None)
    return msgspec.json.encode(stated, order="deterministic")


def _report_figures(home: Path) -> dict[str, str]:
    found = {}
    for path in sorted((home / "reports").rglob("*")):
        if path.is_file() and path.suffix in (".html", ".json") and not path.name.startswith("."):
            text = _MOMENT.sub("", path.read_text(encoding="utf-8", errors="replace").replace(str(home), "HOME"))
            found[f"reports/{path.name}"] = _digest(text.encode())
    return found


_COLUMNS = """
SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c JOIN information_schema.tables t USING
(table_schema, table_name) WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE'
ORDER BY c.table_name, c.ordinal_position
"""
_PARTITION = re.compile(r"_\d{4}_\d{2}$")


async def _database_figures(dsn: str) -> dict[str, str]:
    """Rows of every table, sorted, without the columns that say when and where."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        columns: dict[str, list[str]] = {}
        for table, name, kind in await connection.fetch(_COLUMNS):
            if table not in ("schema_migrations", "trial_ledger") and not _PARTITION.search(table):
                bare = f"\"{name}\" #- '{{manifest,origin}}' #- '{{origin}}'" if kind == "jsonb" else f'"{name}"'
                columns.setdefault(table, []).extend([f"({bare})::text"] if name not in _BOOKKEEPING else [])
        rows = {table: await connection.fetch(f"SELECT {', '.join(names)} FROM {table}") for table, names in columns.items()}
    finally:
        await connection.close()
    return {f"postgres/{table}": f"{len(found)} rows, {_rows_digest(found)}" for table, found in rows.items()}


def _rows_digest(rows: Sequence[Any]) -> str:
    return _digest("\n".join(sorted(repr(tuple(row)) for row in rows)).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """What is other than it should be, in words; figures that a person reads come first."""
    names = sorted(
        found.keys() ^ expected.keys() | {name for name in found.keys() & expected.keys() if found[name] != expected[name]}
    )
    told = [f"{name} is {found.get(name, 'missing')}, not {expected.get(name, 'there')}" for name in names]
    return sorted(told, key=lambda text: (not text.startswith("lake/metrics"), ".sharpe" not in text))


def copy_home(source: Path, target: Path) -> None:
    """An exact copy, times of change included, in the place of whatever was there."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True, timeout=60)  # a third of the time of shutil


def table_of(path: str) -> str:
    """What a file of a home belongs to: lake/<table>, models/index, models/artifacts, state, reports, …"""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] in ("lake", "models") else parts[0]
