"""`tidemill features`: what there is, what it means, and computing it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.arguments import writable
from tidemill.cli.output import counted, json_option, write_json, write_table
from tidemill.cli.progress import progress

if TYPE_CHECKING:
    from tidemill.features.api import FeatureSet


@click.group()
def features() -> None:
    """List, explain and compute features."""


@features.command("list")
@click.option("--set", "name", help="Only this set: classic, alpha30 or alpha158.")
@json_option
def list_features(name: str | None, as_json: bool) -> None:
    """Every feature with its unit, look-back and one sentence."""
    from tidemill.domain.errors import UnknownNameError
    from tidemill.features.api import explain, feature_set
    from tidemill.features.declaration import sets

    if name is not None and name not in sets():
        raise UnknownNameError("feature set", name, sets())
    names = feature_set(*([name] if name else sets())).names
    rows = [explain(feature) for feature in names]
    if as_json:
        write_json(rows)
    else:
        shown = [(row.name, row.unit, "all" if row.recursive else str(row.lookback), row.about) for row in rows]
        write_table("", ("name", "unit", "look-back", "about"), shown)


@features.command()
@click.argument("name")
@json_option
def explain(name: str, as_json: bool) -> None:
    """Formula, look-back, unit and meaning of one feature."""
    from tidemill.features.api import explain as explain_feature

    found = explain_feature(name)
    if as_json:
        write_json(found)
        return
    for label, value in (
        ("name", found.name),
        ("formula", found.formula),
        ("look-back", "all bars before" if found.recursive else found.lookback),
        ("unit", found.unit),
        ("about", found.about),
    ):
        click.echo(f"{label:10} {value}")


@features.command()
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet or CSV to write.")
@click.option("--set", "name", help="Feature sets or single features, separated by commas.  [default: classic]")
@click.option("--module", type=click.Path(path_type=Path), help="Python file whose feature(…) calls are computed instead.")
@click.option(
    "--engine",
    type=click.Choice(["batch", "stream"]),
    default="batch",
    show_default=True,
    help="All bars at once, or bar after bar as in a live session: the same numbers.",
)
@json_option
def compute(source: Path, output: Path, name: str | None, module: Path | None, engine: str, as_json: bool) -> None:
    """Compute features of bars as given (adjust them first if they need it); rows in the order of symbol and time."""
    if name is not None and module is not None:
        raise click.UsageError("Give either --set or --module.")
    from tidemill.cli.frames import write_frame
    from tidemill.features.api import compute as compute_batch
    from tidemill.research.frames import compute_streaming, read_panel

    writable(output)
    chosen = _chosen(name or "classic", module)
    with progress(f"Computing {len(chosen.names)} features of {source.name}"):
        bars = read_panel(source)
        frame = compute_streaming(bars, chosen) if engine == "stream" else compute_batch(bars, chosen)[0]
        write_frame(frame, output)
    answer = {"rows": frame.height, "symbols": frame["symbol"].n_unique(), "features": len(chosen.names), "output": str(output)}
    if as_json:
        write_json(answer)
    else:
        click.echo(
            f"{counted(len(chosen.names), 'feature')} of {counted(frame['symbol'].n_unique(), 'symbol')}, "
            f"{counted(frame.height, 'row')}, written to {output}."
        )


def _chosen(names: str, module: Path | None) -> "FeatureSet":
    from tidemill.features.api import feature_set

    if module is None:
        return feature_set(*(part.strip() for part in names.split(",") if part.strip()))
    from tidemill.features.modules import load_module

    return feature_set(*load_module(module))
