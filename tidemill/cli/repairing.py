"""`tidemill data repair`: the lake made whole again."""

from typing import TYPE_CHECKING

import click

from tidemill.cli.common.output import counted, json_option, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidemill.storage.lake_check import Damage


@click.command()
@json_option
def repair(as_json: bool) -> None:
    """Read the whole lake and mend what is damaged: bars from Postgres; what is computed is left for the next run to make."""
    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import workspace
    from tidemill.maintenance.repair import repair_lake

    with workspace() as opened, progress("Reading the lake"):
        done = repair_lake(opened)
    if as_json:
        write_json(done)
        return
    click.echo(f"{counted(done.checked, 'partition')} read.")
    _tell("restored from Postgres", done.restored)
    _tell("removed; the next run makes it again", done.removed)
    _tell("lost; evaluate those trials again", done.lost)


def _tell(what: str, found: "Sequence[Damage]") -> None:
    for one in found:
        click.echo(f"  {one.table} {one.dataset} {one.partition}: {one.why}; {what}")
