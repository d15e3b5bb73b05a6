"""The predictions in Postgres are those of the lake, whatever was said before."""

from datetime import timedelta
from pathlib import Path

import polars as pl

from tests.storage.stored import stored
from tests.study.panels import small_experiment
from tests.study.running import STEPS
from tidemill.queries.predictions import recent_predictions
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.predictions.engines import drop_old_folds, keep, predict
from tidemill.storage.results import PREDICTIONS as STORED
from tidemill.study.scoring import books
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import PREDICTIONS
from tidemill.study.workspace import Workspace

TO_PREDICTIONS = ("bars", "instruments", "features", "labels", "momentum", "ridge", "predictions", "ensemble", "combined")
SAME = ("book", "symbol", "open_time", "model_id", "fold", "prediction")


def in_postgres(study: Study) -> pl.DataFrame:
    frame = study.workspace.call(stored, study.workspace.database, STORED)
    return frame.select(SAME).sort("book", "symbol", "open_time")


def in_the_lake(study: Study) -> pl.DataFrame:
    frames = [
        study.lake.scan(PREDICTIONS, key).collect().with_columns(pl.lit(key).alias("book")) for key in books(study).values()
    ]
    return pl.concat(frames).drop_nulls("prediction").select(SAME).sort("book", "symbol", "open_time")


def test_what_is_not_predicted_any_more_is_gone_and_the_rest_is_as_it_was(workspace: Workspace, folder: Path) -> None:
    study = study_of(workspace, small_experiment(folder))
    for step in TO_PREDICTIONS:
        STEPS[step](study)
    assert in_postgres(study).height > 0
    assert in_postgres(study).equals(in_the_lake(study))

    key = books(study)["ridge"]
    fold = study.lake.scan(PREDICTIONS, key, partitions=["fold-002"]).collect()
    newest = workspace.call(recent_predictions, workspace.database, workspace.cache, "AAA", "ridge")
    # A shorter universe, bars that are gone, another model; and a fold that is refused.
    less = fold.filter((pl.col("symbol") != "AAA") & (pl.col("open_time") > fold["open_time"].min()))
    keep(study, key, "fold-002", less.with_columns(model_id=pl.lit("another")), "x")
    keep(study, key, "fold-003", fold.with_columns(prediction=pl.lit(None, pl.Float64)), "x")
    assert in_postgres(study).equals(in_the_lake(study))
    assert set(in_postgres(study).filter((pl.col("book") == key) & (pl.col("fold") == 2))["model_id"]) == {"another"}

    # Splits that have fewer folds: the last one goes, here and in what is asked for most.
    later = fold.with_columns(pl.col("open_time", "known_at") + timedelta(days=3_000), fold=pl.lit(99, pl.Int32))
    keep(study, key, "fold-099", later, "x")
    assert not workspace.call(recent_predictions, workspace.database, workspace.cache, "AAA", "ridge").equals(newest)
    drop_old_folds(study, key)
    assert in_postgres(study).equals(in_the_lake(study))
    assert workspace.call(recent_predictions, workspace.database, workspace.cache, "AAA", "ridge").equals(newest)

    for step in (predict, train_ensemble, predict_ensemble):
        step(study)
    assert in_postgres(study).equals(in_the_lake(study))
