"""`tidemill features`: what there is, what it means, and computing it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.arguments import writable
from tidemill.cli.output import counted, fail, json_option, write_json, write_table
from tidemill.cli.progress import progress
from tidemill.cli.proving import prove
from tidemill.domain.errors import InputError

if TYPE_CHECKING:
    from tidemill.features.api import FeatureSet

module_option = click.option("--module", type=click.Path(path_type=Path), help="Python file of features of your own, instead.")


@click.group()
def features() -> None:
    """List, explain and compute features."""


features.add_command(prove)


@features.command("list")
@click.option("--set", "name", help="Only this set: classic, alpha30 or alpha158.")
@module_option
@json_option
def list_features(name: str | None, module: Path | None, as_json: bool) -> None:
    """Every feature with its unit, look-back and one sentence."""
    from tidemill.domain.errors import UnknownNameError
    from tidemill.features.api import explain, feature_set
    from tidemill.features.declaration import sets

    _either(name, module)
    if name is not None and name not in sets():
        raise UnknownNameError("feature set", name, sets())
    names = _of_module(module).names if module else feature_set(*([name] if name else sets())).names
    rows = [explain(feature) for feature in names]
    if as_json:
        write_json(rows)
    else:
        shown = [(row.name, row.unit, "all" if row.recursive else str(row.lookback), row.about) for row in rows]
        write_table("", ("name", "unit", "look-back", "about"), shown)


@features.command()
@click.argument("name")
@module_option
@json_option
def explain(name: str, module: Path | None, as_json: bool) -> None:
    """Formula, look-back, unit and meaning of one feature."""
    from tidemill.features.api import explain as explain_feature

    if module is not None:
        _of_module(module)
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
@module_option
@click.option(
    "--engine",
    type=click.Choice(["batch", "stream"]),
    default="batch",
    show_default=True,
    help="All bars at once, or bar after bar as in a live session: the same numbers.",
)
@json_option
@click.pass_context
def compute(
    ctx: click.Context, source: Path, output: Path, name: str | None, module: Path | None, engine: str, as_json: bool
) -> None:
    """Compute features of bars as given (adjust them first if they need it); rows in the order of symbol and time.

    A function of a module that fails is named and left out; the rest is computed and written, and the exit code is 1.
    """
    _either(name, module)
    from tidemill.cli.frames import write_frame
    from tidemill.features.api import compute as compute_batch
    from tidemill.research.frames import compute_streaming, read_panel

    writable(output)
    chosen, left_out = _chosen(name or "classic", module), _failed(module)
    with progress(f"Computing {len(chosen.names)} features of {source.name}"):
        bars = read_panel(source)
        streaming = engine == "stream"
        frame = compute_streaming(bars, chosen, left_out) if streaming else compute_batch(bars, chosen, left_out=left_out)[0]
        made = frame.width - 2
        if not made:
            raise InputError(next(iter(left_out.values())))
        write_frame(frame, output)
    answer = {"rows": frame.height, "symbols": frame["symbol"].n_unique(), "features": made, "output": str(output)}
    if as_json:
        write_json(answer | ({"left_out": left_out} if left_out else {}))
    else:
        click.echo(
            f"{counted(made, 'feature')} of {counted(frame['symbol'].n_unique(), 'symbol')}, "
            f"{counted(frame.height, 'row')}, written to {output}."
        )
    if left_out:
        ctx.exit(fail(InputError(f"{', '.join(left_out)} left out. {' '.join(dict.fromkeys(left_out.values()))}")))


def _chosen(names: str, module: Path | None) -> "FeatureSet":
    from tidemill.features.api import feature_set

    if module is None:
        return feature_set(*(part.strip() for part in names.split(",") if part.strip()))
    return _of_module(module)


def _either(name: str | None, module: Path | None) -> None:
    if name is not None and module is not None:
        raise click.UsageError("Give either --set or --module.")


def _of_module(module: Path) -> "FeatureSet":
    """The features that a file declares. InputError when it has none."""
    from tidemill.features.api import feature_set
    from tidemill.research.modules.loading import load_module

    loaded = load_module(module)
    if not loaded.features:
        raise InputError(f"The module {module.name} declares no feature. Call feature(…) or features(…) in it.")
    return feature_set(*loaded.features)


def _failed(module: Path | None) -> dict[str, str]:
    """Function → reason, of those in a module whose features could not even be learned."""
    from tidemill.research.modules.loading import load_module

    return dict(load_module(module).failed) if module is not None else {}
