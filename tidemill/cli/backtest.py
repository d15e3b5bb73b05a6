"""`tidemill backtest`: a strategy, or one's own weights, over bars."""

from pathlib import Path
from typing import Any

import click

from tidemill.cli.arguments import writable_folder
from tidemill.cli.output import json_option, number, write_json, write_table
from tidemill.cli.progress import progress


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


BASIS_POINTS = click.FloatRange(min=0, max=10_000, max_open=True)


@click.command(cls=_ManyValues)
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--strategy", "name", help="Name of a strategy that works on bars, for example sma_cross.")
@click.option("--weights", type=click.Path(path_type=Path), help="CSV or Parquet of symbol, open_time, weight.")
@click.option("--param", "parameters", multiple=True, metavar="K=V …", help="Parameters of the strategy.")
@click.option("--fee-bps", type=BASIS_POINTS, default=0.0, show_default=True, help="Fee, basis points of the notional.")
@click.option("--slippage-bps", type=BASIS_POINTS, default=0.0, show_default=True, help="Slippage, basis points of the price.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for trades, equity and positions as Parquet.")
@json_option
def backtest(
    source: Path,
    name: str | None,
    weights: Path | None,
    parameters: tuple[str, ...],
    fee_bps: float,
    slippage_bps: float,
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
    from tidemill.cli.session import workspace
    from tidemill.research.backtesting import run_backtest

    with progress(f"Trading {source.name}"):
        result = run_backtest(
            source,
            strategy=name,
            weights=weights,
            params=_flattened(parameters),
            fee_bps=fee_bps,
            slippage_bps=slippage_bps,
            output=output,
            ledger=workspace,
        )
    if as_json:
        write_json(result)
        return
    shown = [(key.replace("_", " "), _shown(key, value)) for key, value in result.items() if not isinstance(value, list)]
    write_table("", ("figure", "value"), shown)
    for note in result["notes"]:
        click.echo(note)
    if output is not None:
        click.echo(f"trades.parquet, equity.parquet and positions.parquet are in {output}.")
