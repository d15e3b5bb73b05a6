"""`tidemill features prove` and `tidemill models prove`: does anything look ahead?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.common.arguments import experiment_option
from tidemill.cli.common.output import counted, fail, json_option, write_json, write_table
from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.validation.causality.proof import Proof

fear_greed_option = click.option(
    "--fear-greed", help="Join the Fear & Greed Index to the bars, as it was known: alternative.me or file:PATH."
)


@click.command()
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--set", "name", help="Feature sets or single features, separated by commas.  [default: all sets]")
@click.option("--module", type=click.Path(path_type=Path), help="Python file of features of your own, instead.")
@fear_greed_option
@json_option
@click.pass_context
def prove(
    ctx: click.Context, source: Path, name: str | None, module: Path | None, fear_greed: str | None, as_json: bool
) -> None:
    """Prove that no feature looks ahead: computed again with every later bar gone or altered, it must not change.

    The exit code is 1 when a feature is refuted, with the value that changed, fails on what was known, or cannot be judged.
    """
    if name is not None and module is not None:
        raise click.UsageError("Give either --set or --module.")
    from tidemill.cli.common.session import registry
    from tidemill.domain.errors import InputError
    from tidemill.evaluation.proving import chosen_features, prove_on_bars, refused
    from tidemill.market.panel_files import read_panel

    known = registry().with_files([module] if module else [])
    chosen, failed = chosen_features(name, known)
    with progress(f"Proving {counted(len(chosen.names), 'feature')} on {source.name}") as say:
        bars = read_panel(source)
        proof = refused(prove_on_bars(chosen, bars, registry=known, fear_greed=fear_greed, say=say), failed, bars)
    _show(proof, "feature", as_json)
    if not proof.holds:
        names = [*(one.feature for one in proof.refuted), *(one.feature for one in proof.unjudged)]
        ctx.exit(fail(InputError(f"{counted(len(names), 'feature')} cannot be shipped: {', '.join(names)}.")))


@click.command("prove")
@experiment_option
@json_option
@click.pass_context
def prove_models(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Prove that no model saw its future: each fold is fitted again on bars that end where its test begins.

    The new model must be the stored one, bit for bit; then predictions are cut inside every test window. It takes as long as
    three trainings of the experiment, which must have been run. The exit code is 1 when an engine is refuted.
    """
    from tidemill.cli.common.session import registry, workspace
    from tidemill.domain.errors import StopError
    from tidemill.evaluation.refitting import prove_predictions
    from tidemill.experiments.files import experiment_on
    from tidemill.study.sources import study_of

    experiment = experiment_on(file, {}, registry=registry())
    with workspace() as opened, progress(f"Proving {counted(len(experiment.engines), 'engine')}"):
        proof = prove_predictions(study_of(opened, experiment))
    _show(proof, "engine", as_json)
    if proof.refuted:
        names = ", ".join(dict.fromkeys(one.feature for one in proof.refuted))
        ctx.exit(fail(StopError(f"What comes later changes the models or the predictions of {names}. Do not trade them.")))
    if proof.unjudged:
        names = ", ".join(one.feature for one in proof.unjudged)
        ctx.exit(fail(StopError(f"Nothing was shown of {names}. Do not trade them before more bars are there.")))


def _show(proof: "Proof", what: str, as_json: bool) -> None:
    from tidemill.validation.causality.proof import CANNOT_SEE

    if as_json:
        told = {"proven": proof.proven, "refuted": proof.refuted, "not_judged": proof.unjudged}
        write_json({**told, "cannot_see": CANNOT_SEE})
        return
    failing = f", {len(proof.failing)} of them failing" if proof.failing else ""
    open_ = f", {len(proof.unjudged)} not judged" if proof.unjudged else ""
    click.echo(f"{counted(len(proof.proven), what)} proven, {len(proof.refuted)} refuted{failing}{open_}.")
    if proof.longer:
        click.echo(f"Read further back than their stated look-back: {', '.join(proof.longer)}.")
    if proof.refuted:
        rows = [(one.feature, one.symbol, f"{one.time:%Y-%m-%d %H:%M}", one.why) for one in proof.refuted]
        write_table("", (what, "symbol", "time", "why"), rows)
    if proof.unjudged:
        write_table("", (what, "why it is not judged"), [(one.feature, one.why) for one in proof.unjudged])
    click.echo(CANNOT_SEE)
