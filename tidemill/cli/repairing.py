"""`tidemill data repair`: what is stored made whole again."""

from typing import TYPE_CHECKING

import click

from tidemill.cli.common.output import counted, json_option, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemill.storage.lake_check import Damage


@click.command()
@json_option
def repair(as_json: bool) -> None:
    """Read all that is stored and mend what is damaged: bars and models are restored; the rest the next run makes again."""
    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import workspace
    from tidemill.maintenance.repair import repair as repair_home

    with workspace() as opened, progress("Reading what is stored"):
        done = repair_home(opened)
    if as_json:
        write_json(done)
        return
    click.echo(f"{counted(done.checked, 'partition')} read.")
    _tell("restored from Postgres", done.restored)
    _tell("removed; the next run makes it again", done.removed)
    _tell("lost; evaluate those trials again", done.lost)
    for one in done.files:
        click.echo(f"  {one.path}: {one.why}; {_OUTCOMES[one.outcome]}")


_OUTCOMES = {
    "restored": "restored",
    "removed": "removed; the next run makes it again",
    "lost": "lost; restore it from a copy",
}


def _tell(what: str, found: "Sequence[Damage]") -> None:
    for one in found:
        click.echo(f"  {one.table} {one.dataset} {one.partition}: {one.why}; {what}")
