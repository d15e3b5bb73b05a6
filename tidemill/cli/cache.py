"""`tidemill cache`: what is kept near, and emptying it. Nothing is lost: every fact lives in Postgres and the lake."""

import click

from tidemill.cli.common.output import json_option, write_json, write_table


@click.group()
def cache() -> None:
    """Show and clear the cache."""


@cache.command()
@json_option
def show(as_json: bool) -> None:
    """Every entry with its size and the seconds that it has left."""
    from tidemill.cli.common.session import workspace

    with workspace() as opened:
        entries = opened.call(opened.cache.show)
    if as_json:
        write_json(entries)
    elif not entries:
        click.echo("The cache is empty.")
    else:
        columns = ("key", "level", "bytes", "seconds left")
        write_table("", columns, [(entry.key, entry.level, entry.bytes, round(entry.seconds)) for entry in entries])


@cache.command()
@click.option("--pattern", default="*", show_default=True, help="Keys to remove, for example prices:AAPL or features:*.")
@json_option
def clear(pattern: str, as_json: bool) -> None:
    """Remove entries; what is asked for next is loaded again."""
    from tidemill.cli.common.session import workspace

    with workspace() as opened:
        removed = opened.call(opened.cache.clear, pattern)
    if as_json:
        write_json({"removed": removed})
    else:
        click.echo(f"{removed} {'entry' if removed == 1 else 'entries'} removed.")
