"""`tidemill doctor`: what is wrong with this set-up and what to do about it."""

import click

from tidemill.cli.output import json_option, write_json


@click.command()
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Examine this set-up; exit code 1 if something needs your hand."""
    from tidemill.config import load_settings
    from tidemill.research.doctor import examine

    findings = examine(load_settings())
    if as_json:
        write_json(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name}: {finding.detail}")
            if not finding.ok:
                click.echo(f"      → {finding.advice}")
    if not all(finding.ok for finding in findings):
        ctx.exit(1)
