"""`tidemill features`: what there is, what it means, and computing it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tidemill.cli.common.arguments import writable
from tidemill.cli.common.output import counted, fail, json_option, write_json, write_table
from tidemill.cli.common.progress import progress
from tidemill.cli.proving import fear_greed_option, prove
from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.api import Explanation, FeatureSet
    from tidemill.features.declaration import Features
    from tidemill.study.registry import Registry

_IN_TERMINAL = "-"
module_option = click.option("--module", type=click.Path(path_type=Path), help="Python file of features of your own, instead.")


@click.group()
def features() -> None:
    """List, explain and compute features."""


features.add_command(prove)


@features.command("list")
@click.option("--set", "name", help="Only this set: alpha158, alpha30, classic, cross, calendar, regime …")
@module_option
@json_option
def list_features(name: str | None, module: Path | None, as_json: bool) -> None:
    """Every feature with its unit, look-back, source and one sentence."""
    from tidemill.domain.errors import UnknownNameError
    from tidemill.features.api import explain, feature_set

    _either(name, module)
    known = _registry(module).features
    if name is not None and name not in known.sets:
        raise UnknownNameError("feature set", name, known.sets)
    chosen = _of_module(module) if module else feature_set(*([name] if name else known.sets), known=known)
    rows = [explain(feature, known) for feature in chosen.names]
    if as_json:
        write_json(rows)
    else:
        shown = [(row.name, row.unit, "all" if row.recursive else str(row.lookback), row.source, row.about) for row in rows]
        write_table("", ("name", "unit", "look-back", "source", "about"), shown)


@features.command()
@click.argument("name")
@module_option
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=_IN_TERMINAL,
    help="Show its course: in the terminal, or as a PNG file of this name.",
)
@click.option(
    "--input", "source", type=click.Path(path_type=Path), help="CSV or Parquet of bars to plot.  [default: the sample]"
)
@click.option("--symbol", help="Which symbol to plot.  [default: the first]")
@fear_greed_option
@json_option
def explain(
    name: str,
    module: Path | None,
    plot: Path | None,
    source: Path | None,
    symbol: str | None,
    fear_greed: str | None,
    as_json: bool,
) -> None:
    """Formula, look-back, unit, source and meaning of one feature; its course with --plot."""
    from tidemill.features.api import explain as explain_feature

    if plot is None and any(given is not None for given in (source, symbol, fear_greed)):
        plot = Path(_IN_TERMINAL)
    if module is not None:
        _of_module(module)
    known = _registry(module).features
    found = explain_feature(name, known)
    course = _course(found, known, plot, source, symbol, fear_greed) if plot is not None else {}
    if as_json:
        write_json(msgspec.structs.asdict(found) | course)
        return
    look_back = "all bars before" if found.recursive else str(found.lookback)
    told = {
        "name": found.name,
        "formula": found.formula,
        "look-back": look_back + (", and the other symbols of its time" if found.cross_sectional else ""),
        "unit": found.unit,
        "source": found.source,
        "about": found.about,
        **{label: str(value) for label, value in course.items() if label != "symbol"},
    }
    for label, value in told.items():
        if value:
            click.echo(f"{label:10} {value}")


def _course(
    found: "Explanation", known: "Features", plot: Path, source: Path | None, symbol: str | None, fear_greed: str | None
) -> dict[str, str | float | None]:
    """What the plot shows, in words and figures; the picture is written."""
    from tidemill.reports.feature_plot import feature_series, sparkline, write_picture

    in_terminal = str(plot) == _IN_TERMINAL
    if not in_terminal and plot.suffix.lower() != ".png":
        raise InputError(f"The plot {plot} cannot be written: plots are PNG files. Use a file name that ends in .png.")
    with progress(f"Computing {found.name}"):
        series = feature_series(found.name, source, symbol=symbol, fear_greed=fear_greed, known=known)
        if not in_terminal:
            write_picture(series, found.name, found.unit, plot)
    valued = series.drop_nans("value")
    last = valued["value"][-1] if valued.height else None
    span = f"{series['open_time'][0]:%Y-%m-%d} to {series['open_time'][-1]:%Y-%m-%d}" if series.height else "no bars"
    shown = sparkline(series["value"].to_list()) if in_terminal else str(plot)
    return {"symbol": str(series["symbol"][0]) if series.height else "", "plot": shown, "of": f"{series['symbol'][0]}, {span}",
            "last": last}  # fmt: skip


@features.command()
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet or CSV to write.")
@click.option("--set", "name", help="Feature sets or single features, separated by commas.  [default: classic]")
@module_option
@click.option(
    "--execution",
    "--engine",
    "execution",
    type=click.Choice(["batch", "stream"]),
    default="batch",
    show_default=True,
    help="All bars at once, or bar after bar as in a live session: the same numbers.",
)
@fear_greed_option
@json_option
@click.pass_context
def compute(
    ctx: click.Context,
    source: Path,
    output: Path,
    name: str | None,
    module: Path | None,
    execution: str,
    fear_greed: str | None,
    as_json: bool,
) -> None:
    """Compute features of bars as given (adjust them first if they need it); rows in the order of symbol and time.

    A function of a module that fails is named and left out; the rest is computed and written, and the exit code is 1.
    """
    _either(name, module)
    writable(output)
    chosen, left_out = _chosen(name or "classic", module), _failed(module)
    with progress(f"Computing {len(chosen.names)} features of {source.name}"):
        bars = _bars(source, fear_greed)
        made = _write(bars, chosen, output, execution, left_out)
    symbols = bars["symbol"].n_unique()
    answer = {"rows": bars.height, "symbols": symbols, "features": made, "output": str(output)}
    if as_json:
        write_json(answer | ({"left_out": left_out} if left_out else {}))
    else:
        click.echo(
            f"{counted(made, 'feature')} of {counted(symbols, 'symbol')}, {counted(bars.height, 'row')}, written to {output}."
        )
    if left_out:
        ctx.exit(fail(InputError(f"{', '.join(left_out)} left out. {' '.join(dict.fromkeys(left_out.values()))}")))


def _write(bars: "pl.DataFrame", chosen: "FeatureSet", output: Path, execution: str, left_out: dict[str, str]) -> int:
    """The number of features that were computed and written; to Parquet some symbols at a time, where that is possible."""
    from tidemill.cli.frames import is_parquet, replace_with, write_frame
    from tidemill.features.api import compute as compute_batch
    from tidemill.features.partitions import separable, write_parquet
    from tidemill.market.panel_files import compute_streaming

    if execution == "batch" and is_parquet(output) and separable(chosen):
        replace_with(output, lambda path: write_parquet(bars, chosen, path))
        return len(chosen.names)
    streaming = execution == "stream"
    frame = compute_streaming(bars, chosen, left_out) if streaming else compute_batch(bars, chosen, left_out=left_out)[0]
    if frame.width == 2:
        raise InputError(next(iter(left_out.values())))
    write_frame(frame, output)
    return frame.width - 2


def _bars(source: Path, fear_greed: str | None) -> "pl.DataFrame":
    from tidemill.market.panel_files import read_panel

    bars = read_panel(source)
    if fear_greed is None:
        return bars
    from tidemill.market.fear_greed_panel import join_source

    return join_source(bars, fear_greed)


def _chosen(names: str, module: Path | None) -> "FeatureSet":
    from tidemill.features.api import feature_set

    if module is None:
        return feature_set(*(part.strip() for part in names.split(",") if part.strip()), known=_registry(None).features)
    return _of_module(module)


def _either(name: str | None, module: Path | None) -> None:
    if name is not None and module is not None:
        raise click.UsageError("Give either --set or --module.")


def _of_module(module: Path) -> "FeatureSet":
    """The features that a file declares. InputError when it has none."""
    from tidemill.features.api import FeatureSet

    (loaded,) = _registry(module).files
    if not loaded.features:
        raise InputError(f"The module {module.name} declares no feature. Call feature(…) or features(…) in it.")
    return FeatureSet(tuple(loaded.own.features.values()))


def _failed(module: Path | None) -> dict[str, str]:
    """Function → reason, of those in a module whose features could not even be learned."""
    return _registry(module).failed


def _registry(module: Path | None) -> "Registry":
    """What names mean for this command: the file's own go before."""
    from tidemill.cli.common.session import registry

    return registry().with_files([module] if module else [])
