"""`tidemill doctor`: what is wrong with this set-up and what to do about it."""

import click

from tidemill.cli.common.output import fail, json_option, write_json
from tidemill.cli.common.progress import progress
from tidemill.domain.errors import ConfigError


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Examine this set-up; exit code 1 if something needs your hand."""
    from tidemill.config import load_settings
    from tidemill.maintenance.doctor import examine

    with progress("Examining this set-up"):
        findings = examine(load_settings())
    if as_json:
        write_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}")
            if finding.advice:
                click.echo(f"      → {finding.advice}")
    wrong = [finding.name for finding in findings if not finding.ok]
    if wrong:
        found = f"{len(wrong)} of {len(findings)} checks failed ({', '.join(wrong)})"
        ctx.exit(fail(ConfigError(f"{found}. Follow the advice at each, then run `tidemill doctor` again.")))
