"""`tidemill backtest`: a strategy, or one's own weights, over bars."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.arguments import writable_folder
from tidemill.cli.common.output import json_option, number, write_json, write_table
from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.domain.experiment import NeutraliseSpec


def _parameter(text: str) -> tuple[str, Any]:
    """`name=value`; the value is a number or true or false where it looks like one."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"--param {text!r} is not name=value. Write for example --param fast=20.")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, {"true": True, "false": False}.get(value.lower(), value)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _flattened(parameters: tuple[str, ...]) -> dict[str, Any]:
    # `--param fast=10 slow=30` and `--param fast=10,slow=30` are both understood.
    return dict(_parameter(part) for text in parameters for part in text.replace(",", " ").split())


def _shown(name: str, value: object) -> str:
    return f"{value:.2%}" if name == "max_drawdown" and isinstance(value, float) else number(value)


class _ManyValues(click.Command):
    """Lets one option take several values: `--param k=v k=v` as well as `--param k=v --param k=v`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        taken = 0  # values that the option in front has taken so far; 0 outside of it
        for argument in args:
            if taken and "=" in argument and not argument.startswith("-"):
                spread += [argument] if taken == 1 else ["--param", argument]
                taken += 1
                continue
            taken = int(argument == "--param")
            spread.append(argument)
        return super().parse_args(ctx, spread)


_TOP = 10  # runs of a sweep that a person is shown


def _swept(
    source: Path, name: str, texts: tuple[str, ...], fee_bps: float, slippage_bps: float, output: Path | None, as_json: bool
) -> None:
    """Run the sweep and show the best of it."""
    from tidemill.cli.common.session import registry, workspace
    from tidemill.evaluation.sweep import grid_of, run_sweep

    grid = grid_of(texts)
    with progress(f"Sweeping {name} over {source.name}"):
        result = run_sweep(
            source,
            strategy=name,
            grid=grid,
            fee_bps=fee_bps,
            slippage_bps=slippage_bps,
            output=output,
            ledger=workspace,
            known=registry().strategies,
        )
    if as_json:
        write_json(result)
        return
    runs = result["runs"]
    columns = (*grid, "sharpe", "total_return", "max_drawdown", "trades", "fees", "trial")
    shown = [tuple(_cell(column, run[column]) for column in columns) for run in runs[:_TOP]]
    write_table("", tuple(column.replace("_", " ") for column in columns), shown)
    tried, counted = _counted(len(runs), "combination"), _counted(result["trials"], "trial")
    click.echo(f"{tried} over {result['bars']:,} bars, {counted} in the ledger.")
    click.echo("The best of many is not an estimate: `tidemill trials compare` deflates it by how many were tried.")
    for note in result["notes"]:
        click.echo(note)
    if output is not None:
        click.echo(f"All of them are in {output / 'sweep.parquet'}.")


def _cell(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and name in ("total_return", "max_drawdown"):
        return f"{value:.2%}"
    return value if isinstance(value, str) else number(value)


def _neutralise(by: str | None, sectors: Path | None) -> "NeutraliseSpec | None":
    if (by == "sector") != (sectors is not None):
        raise click.UsageError("--sectors FILE and --neutralise sector must be given together.")
    if by is None:
        return None
    from tidemill.domain.experiment import NeutraliseSpec

    if sectors is None:
        return NeutraliseSpec(by="beta")
    from tidemill.market.column_files import read_sectors
    from tidemill.strategies.neutral import with_sectors

    return with_sectors(NeutraliseSpec(by="sector"), read_sectors(sectors))


BASIS_POINTS = click.FloatRange(min=0, max=10_000, max_open=True)


@click.command(cls=_ManyValues)
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--strategy", "name", help="Name of a strategy that works on bars, for example sma_cross.")
@click.option("--weights", type=click.Path(path_type=Path), help="CSV or Parquet of symbol, open_time, weight.")
@click.option("--param", "parameters", multiple=True, metavar="K=V …", help="Parameters of the strategy.")
@click.option("--fee-bps", type=BASIS_POINTS, default=0.0, show_default=True, help="Fee, basis points of the notional.")
@click.option("--slippage-bps", type=BASIS_POINTS, default=0.0, show_default=True, help="Slippage, basis points of the price.")
@click.option("--sweep", "grid", multiple=True, metavar="K=FROM:TO:STEP,…", help="Every combination of these, each a trial.")
@click.option("--neutralise", type=click.Choice(["sector", "beta"]), help="Take this bet out of the weights.")
@click.option("--sectors", type=click.Path(path_type=Path), help="CSV or Parquet of symbol, sector.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for trades, equity and positions as Parquet.")
@json_option
def backtest(
    source: Path,
    name: str | None,
    weights: Path | None,
    parameters: tuple[str, ...],
    fee_bps: float,
    slippage_bps: float,
    grid: tuple[str, ...],
    neutralise: str | None,
    sectors: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Fill at the next bar's open, with fees, and answer equity, trades, fees and drawdown; counted as a trial."""
    if (name is None) == (weights is None):
        raise click.UsageError("Give either --strategy NAME or --weights PATH.")
    if weights is not None and parameters:
        raise click.UsageError("--param belongs to --strategy; weights have no parameters.")
    if fee_bps != fee_bps or slippage_bps != slippage_bps:
        raise click.UsageError("A cost is not a number. Give basis points, such as --fee-bps 5.")
    if output is not None:
        writable_folder(output)
    if grid:
        if name is None or parameters or neutralise is not None:
            raise click.UsageError("--sweep works with --strategy only; give a fixed parameter as --sweep name=value.")
        _swept(source, name, grid, fee_bps, slippage_bps, output, as_json)
        return
    neutral = _neutralise(neutralise, sectors)
    from tidemill.cli.common.session import registry, workspace
    from tidemill.evaluation.backtest import run_backtest

    with progress(f"Trading {source.name}"):
        result = run_backtest(
            source,
            strategy=name,
            weights=weights,
            params=_flattened(parameters),
            fee_bps=fee_bps,
            slippage_bps=slippage_bps,
            output=output,
            neutralise=neutral,
            ledger=workspace,
            known=registry().strategies,
        )
    if as_json:
        write_json(result)
    else:
        _write_result(result, output)


def _write_result(result: Mapping[str, Any], output: Path | None) -> None:
    shown = [(key.replace("_", " "), _shown(key, value)) for key, value in result.items() if not isinstance(value, list)]
    write_table("", ("figure", "value"), shown)
    for note in result["notes"]:
        click.echo(note)
    if output is not None:
        click.echo(f"trades.parquet, equity.parquet and positions.parquet are in {output}.")
