"""The research surface for notebooks and scripts: synchronous, polars frames in and out, also inside Jupyter's running loop.

    from tidemill import lab

    frame = lab.bars("sample")                          # total-return prices of the built-in sample
    signals = lab.features(frame, "rsi_14", "ROC20")
    result = lab.backtest(frame, weights)               # your own weights: symbol, open_time, weight
    lab.metrics(result.returns["return"])
    lab.load("mine.py")                                 # features, labels, engines and strategies of your own
    lab.signals("mine"), lab.result("mine")             # of an experiment that was run, by name or id; a file works too
    lab.predictions("sample"), lab.sql("SELECT count(*) FROM bars")

Servers are joined, or started, at the first call that needs them, and let go when Python ends.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike

    from tidemill.backtest.result import BacktestResult
    from tidemill.config import Settings
    from tidemill.domain.experiment import Experiment, NeutraliseSpec
    from tidemill.evaluation.cross_validation import CrossValidation, Splitter
    from tidemill.evaluation.search import Metric, Searched
    from tidemill.queries.results import Result
    from tidemill.queries.trials import TrialComparison
    from tidemill.study.registry import Registry
    from tidemill.study.study import Study
    from tidemill.study.workspace import Workspace
    from tidemill.user_modules.loading import Module
    from tidemill.validation.causality.proof import Proof

__all__ = [
    "attribution",
    "backtest",
    "bars",
    "book",
    "close",
    "compare_trials",
    "cross_validate",
    "features",
    "load",
    "metrics",
    "predictions",
    "prove",
    "result",
    "risk",
    "search",
    "signals",
    "sql",
    "sweep",
    "trials",
]

_open = ExitStack()
_workspaces: dict[Settings, Workspace] = {}
_loaded: dict[Path, Module] = {}  # by `load`: what this notebook knows by name, beside what ships


def _workspace() -> Workspace:
    from tidemill.config import load_settings

    return _opened(load_settings())


def _opened(settings: Settings) -> Workspace:
    """One workspace for each home that this process looks at."""
    from tidemill.study.workspace import open_workspace

    if settings not in _workspaces:
        if not _workspaces:
            atexit.register(close)
        _workspaces[settings] = _open.enter_context(open_workspace(settings))
    return _workspaces[settings]


def close() -> None:
    """Let servers and connections go before Python ends; the next call joins or starts them again."""
    atexit.unregister(close)
    _workspaces.clear()
    _open.close()


def _experiment(of: str | Path | Experiment, engine: str | None = None) -> Experiment:
    """What is meant, with the loaded files that declare what it names, or an engine that is asked for beside."""
    from tidemill.experiments.files import checked
    from tidemill.user_modules.adoption import with_named

    known = _settled()
    return checked(with_named(_meant(of, known), _there(), known.bounds, engine), known)


def _meant(of: object, known: Registry) -> Experiment:
    """The experiment of a file, the default one of a source, one that ships, or one that was run, unchecked."""
    from tidemill.domain.errors import InputError
    from tidemill.domain.experiment import DatasetSpec, Experiment
    from tidemill.experiments.files import experiment_for, shipped, written
    from tidemill.market.sources import SAMPLE, VENUES

    if isinstance(of, Experiment):
        return of
    if not isinstance(of, str | Path):
        raise InputError(
            f"{of!r} is no experiment. Give an Experiment, a YAML file, a source, or the name or id of one that was run "
            "(`tidemill experiments list`)."
        )
    if isinstance(of, Path) or of.endswith((".yaml", ".yml")) or of in shipped():
        return written(Path(of))
    if of in (SAMPLE, *VENUES) or of.startswith("file:"):
        return experiment_for(DatasetSpec(source=of), registry=known)
    return _ran(of)


def _ran(name: str) -> Experiment:
    """The experiment with this name or id that was run."""
    from tidemill.experiments.tracked import content_of, experiments_of, meant

    workspace = _workspace()
    rows = workspace.call(experiments_of, workspace.database, workspace.settings.home)
    return content_of(meant(rows, name))


def _settled() -> Registry:
    """What every experiment knows by name."""
    from tidemill.config import load_settings
    from tidemill.study.registry import Registry

    return Registry.of(load_settings())


def _registry() -> Registry:
    """What a notebook knows by name: the files that it loaded go before."""
    return _settled().with_modules(_there())


def _there() -> tuple[Module, ...]:
    """The loaded files that are still there."""
    return tuple(module for file, module in _loaded.items() if file.exists())


def _study(of: str | Path | Experiment, engine: str | None = None) -> Study:
    from tidemill.study.sources import study_of

    experiment = _experiment(of, engine)
    return study_of(_workspace(), experiment)


def bars(
    source: str | Path | Experiment = "sample",
    *,
    symbols: Sequence[str] = (),
    interval: str = "1d",
    start: str | None = None,
    end: str | None = None,
    adjusted: bool = True,
    fetch: bool = True,
    as_of: str | None = None,
) -> pl.DataFrame:
    """Bars of a source (`sample`, `file:PATH`, a venue), or of an experiment's dataset, up to date with it.

    symbols, interval, start, end: of a source; an experiment states its own. Dates are ISO texts, the end exclusive.
    adjusted: on a total-return basis, by what was known at each bar; else raw, as traded. fetch: False asks nothing of the
    source and reads what is stored, as the last run left it. as_of: an ISO time; what was known then, each
    bar from its receipt. Without it history is as corrected since, each bar known at its close.
    Raises UnknownNameError for a source or a symbol that is not there, InputError for a wrong interval or date, or where
    nothing is stored yet, UnavailableError for a venue that cannot be reached.
    """
    from tidemill.domain.errors import InputError
    from tidemill.domain.experiment import DatasetSpec
    from tidemill.domain.intervals import moment
    from tidemill.experiments.files import experiment_for
    from tidemill.steps.market_data.bars import sync_bars

    if isinstance(source, str) and not source.endswith((".yaml", ".yml")):
        named = tuple(symbols.split(",") if isinstance(symbols, str) else symbols)
        wanted = DatasetSpec(source=source, interval=interval, symbols=named, start=start, end=end)
        experiment = experiment_for(wanted, registry=_settled())
    else:
        experiment = _experiment(source)
    study = _study(experiment)
    if fetch:
        sync_bars(study)
    elif not study.lake.manifests("bars", study.dataset.bars_key):
        raise InputError("No bars of this dataset are stored yet. Leave out fetch=False, or run the experiment.")
    at = moment(as_of, "as_of")
    if at is not None:
        return study.bars_as_of(at, adjusted=adjusted)
    return study.adjusted if adjusted else study.bars


def load(path: str | Path) -> Module:
    """Load a file of one's own features, labels, engines and strategies, and answer what it declares, by name.

    Its features can then be given to `features`, its strategies over bars to `backtest`, and all of it to an experiment.
    Loading a changed file replaces what it declared, a file that vanished frees its names. InputError, with the line, for a
    file that cannot be run, and for a name that another loaded file has.
    """
    from tidemill.user_modules.loading import load_module

    known, file = _settled(), Path(path).expanduser().absolute()
    _loaded.pop(file, None)  # of a file that cannot be run nothing stays
    made = load_module(file, known.bounds)
    known.with_modules([*_there(), made])
    _loaded[file] = made
    return made


def features(bars: pl.DataFrame, *names: str) -> pl.DataFrame:
    """Features of adjusted bars: symbol, open_time and one column for each; `names` are sets or single features."""
    from tidemill.features.api import compute, feature_set

    return compute(bars, feature_set(*(names or ("classic",)), known=_registry().features))[0]


def prove(
    bars: pl.DataFrame,
    *what: str | Callable[..., pl.DataFrame],
    lookback: int | None = None,
    beside: Mapping[str, pl.DataFrame] | None = None,
) -> Proof:
    """Does anything look ahead? Computed again on bars whose future is gone or altered, every value must be the same bits.

    what: names of sets or of single features, or functions of one's own: bars → symbol, open_time and a column each.
    lookback: own bars that the functions read, the current one included; None when it is not known. beside: further frames that
    the functions take by name, each with `known_at`. `proof.refuted` names feature, symbol, time and why; `proof.unjudged` what
    was neither proven nor refuted.

    Each call of a function runs in a fresh process, so that it cannot remember an earlier one. What a function refers to goes
    with it: modules, functions, numbers, texts, expressions, arrays, frames. With anything else (an object of a class of one's
    own) it is computed here, and not judged unless it is refuted. No proof sees what a function takes from the day of the run,
    nor a constant that was worked out elsewhere from later bars.
    """
    from tidemill.evaluation.proving import prove_all

    return prove_all(bars, what or ("classic",), lookback=lookback, beside=beside, known=_registry().features)


def predictions(of: str | Path | Experiment = "sample", engine: str = "ensemble") -> pl.DataFrame:
    """Out-of-sample predictions of an experiment that was run: symbol, open_time, engine, prediction, fold, model_id, known_at.

    engine: one of the experiment's, or `ensemble`. InputError when `tidemill run` has not run the experiment yet.
    """
    from tidemill.queries.predictions import stored_predictions

    study = _study(of)
    return study.workspace.call(stored_predictions, study, engine)


def signals(of: str | Path | Experiment = "sample", engine: str | None = None) -> pl.DataFrame:
    """What Postgres serves of an experiment that was run: symbol, open_time, weight, direction, confidence, known_at,
    expires_at, status, decider; zero weights too.

    engine: a book of the experiment, by default the one that it would trade; the others are served of tracked experiments.
    InputError when nothing is served of it.
    """
    from tidemill.experiments.tracked import id_of
    from tidemill.queries.signals import served_signals

    study = _study(of)
    return study.workspace.call(served_signals, study, id_of(study.experiment), engine)


def book(
    of: str | Path | Experiment = "sample", engine: str = "ensemble", *, start: str | None = None, end: str | None = None
) -> BacktestResult:
    """The book of an experiment that was run, traded again over a range as its run, its promotion and its search trade it.

    Its stored predictions that count, its strategy, neutrality and costs. engine: one of the experiment's, or `ensemble`.
    start, end: ISO texts, the end exclusive; from the first test window to the last bar when not given. It begins with cash at
    the start. InputError when `tidemill run` has not run the experiment yet, or for a start before the first test window.
    """
    from tidemill.domain.errors import InputError
    from tidemill.domain.intervals import moment
    from tidemill.study.book import Span, tested
    from tidemill.study.book import book as traded
    from tidemill.study.rejections import tradable
    from tidemill.study.scoring import predicted_by, require_predictions

    study = _study(of)
    require_predictions(study, engine)
    first = tested(study).start
    since = moment(start, "start") or first
    if since < first:
        raise InputError(f"start is {since:%Y-%m-%d}, before the first test window of {first:%Y-%m-%d}. Give a later date.")
    return traded(study, tradable(study, engine, predicted_by(study, engine)), Span(since, moment(end, "end")))


def result(of: str | Path | Experiment = "sample") -> Result:
    """What the last run of an experiment came to: figures of every book by name, sentences, and where its report is."""
    from tidemill.queries.results import result_of

    experiment, workspace = _experiment(of), _workspace()
    return workspace.call(result_of, workspace.settings, experiment)


def backtest(
    bars: pl.DataFrame,
    weights: pl.DataFrame | None = None,
    *,
    strategy: str | None = None,
    params: Mapping[str, Any] | None = None,
    fee_bps: float = 5.0,
    slippage_bps: float = 5.0,
    capital: float = 1_000_000.0,
    can_short: bool | None = None,
    neutralise: NeutraliseSpec | None = None,
) -> BacktestResult:
    """Trade `weights[symbol, open_time, weight]`, or a strategy that works on bars, over `bars`; fills at the next open.

    Bars are traded at the prices given: use adjusted ones unless no split and no dividend lies in the range.
    fee_bps, slippage_bps: basis points, one way. capital: in the quote currency. can_short: None asks the calendar:
    what follows New York's is a stock, which can be sold short, everything else is long only. neutralise: take the bet on
    sectors, or on the market's beta, out of the weights first.

    The result holds `trades`, `positions`, `equity`, `fills` and `contributions` (profit by symbol) as frames;
    `attribution` takes it apart.
    Counted as a trial (`trials()` lists them): `trial` of the result is its id there.
    """
    from tidemill.evaluation.backtest import backtest_frame

    return backtest_frame(
        bars,
        weights,
        strategy=strategy,
        params=params or {},
        fee_bps=fee_bps,
        slippage_bps=slippage_bps,
        capital=capital,
        can_short=can_short,
        neutralise=neutralise,
        ledger=lambda: nullcontext(_workspace()),
        known=_registry().strategies,
    )


def sweep(
    bars: pl.DataFrame,
    strategy: str,
    grid: Mapping[str, Sequence[Any]],
    *,
    fee_bps: float = 5.0,
    slippage_bps: float = 5.0,
    capital: float = 1_000_000.0,
    can_short: bool | None = None,
) -> pl.DataFrame:
    """Backtests of a strategy over bars for every combination of `grid`, such as {"fast": range(5, 50, 5), "slow": [50, 100]}.

    One row each: the parameters, `trial`, `sharpe` and totals, as a single `backtest` of them has to the bit. Each is one trial
    in the ledger, so that the best of them can be deflated by how many were tried (`compare_trials`).
    """
    from tidemill.evaluation.sweep import sweep_frame

    return sweep_frame(
        bars,
        strategy,
        grid,
        fee_bps=fee_bps,
        slippage_bps=slippage_bps,
        capital=capital,
        can_short=can_short,
        ledger=lambda: nullcontext(_workspace()),
        known=_registry().strategies,
    ).runs


def attribution(result: BacktestResult, market: pl.DataFrame | None = None) -> pl.DataFrame:
    """Profit of a backtest by cost, market and symbol: part, name, profit (cash), return (of the capital); every part adds up.

    market: time, return; by default the equal-weight mean of the symbols traded.
    """
    from tidemill.steps.trading.attribution import attribution_of

    return attribution_of(result, market)[0]


def cross_validate(
    of: str | Path | Experiment = "sample",
    engine: str = "ridge",
    *,
    splitter: Splitter = "purged_k_fold",
    folds: int = 6,
    test_folds: int = 2,
    embargo: int | None = None,
    params: Mapping[str, Any] | None = None,
) -> CrossValidation:
    """One engine on an experiment's data by `walk_forward`, `purged_k_fold` or `combinatorial` splits; counted as one trial.

    Skill in each split (`splits`) and along each path (`paths`), frames both. folds, test_folds: of the last two splitters.
    embargo: bar times, None for max(horizon, longest finite look-back). params: of the engine.
    """
    from tidemill.evaluation.cross_validation import Plan
    from tidemill.evaluation.cross_validation import cross_validate as validate

    plan = Plan(splitter=splitter, folds=folds, test_folds=test_folds, embargo=embargo)
    return validate(_study(of, engine), engine, plan, params=params)


def trials(experiment: str | None = None, family: str | None = None) -> pl.DataFrame:
    """The ledger: one row for each evaluation of a configuration on data, in the order in which they were counted.

    family: venue and interval, such as `binance.1h`. Sharpe ratios are annualised, after costs.
    """
    from tidemill.queries.trials import list_trials

    workspace = _workspace()
    return workspace.call(list_trials, workspace.database, experiment=experiment, family=family)


def compare_trials(*trial_ids: str, experiment: str | None = None) -> TrialComparison:
    """Trials side by side: Sharpe ratios with intervals, deflated by all trials on that source, and PBO among those compared.

    Name them by id, or by their experiment. InputError when they are of different sources.
    """
    from tidemill.queries.trials import compare_trials

    workspace = _workspace()
    return workspace.call(compare_trials, workspace.database, workspace.lake, trial_ids, experiment=experiment)


def risk(of: str | Path | Experiment) -> pl.DataFrame:
    """Forecasts of an experiment's risk engine: symbol, open_time, volatility, horizon_volatility, drawdown, …, engine, fold.

    Volatilities are standard deviations, in fractions. InputError when the experiment forecasts no risk or was not run yet.
    """
    from tidemill.steps.models.risk import risk_of

    return risk_of(_study(of))


def search(
    of: str | Path | Experiment, engine: str, *, trials: int = 20, metric: Metric = "rank_ic", held_out: int | None = None
) -> Searched:
    """Search the parameters of an engine on the folds before a held-out tail; see `evaluation.search`.

    trials: in all, those of an earlier call included. metric: `rank_ic` or `sharpe`. Every trial is counted in the ledger; the
    answer holds the trials, the best parameters, their score on the held-out folds, and the experiment with them in it.
    """
    from tidemill.evaluation.search import search as searched

    return searched(_study(of, engine), engine, trials=trials, metric=metric, held_out=held_out)


def metrics(returns: ArrayLike, periods_per_year: float = 252.0) -> dict[str, float | None]:
    """Return, risk and tail figures of simple returns, in the conventions of empyrical; None where not defined."""
    from tidemill.metrics.returns import performance_metrics

    return performance_metrics(returns, periods_per_year)


def sql(query: str) -> pl.DataFrame:
    """A read-only duckdb query over the lake: one view for each table (bars, features, labels, predictions, equity, …)."""
    return _workspace().lake.sql(query)
