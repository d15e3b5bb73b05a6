"""`tidemill cache`: what Redis holds, and emptying it. Nothing is lost: every fact lives in Postgres and the lake."""

import click

from tidemill.cli.output import json_option, write_json, write_table


@click.group()
def cache() -> None:
    """Show and clear the cache."""


@cache.command()
@json_option
def show(as_json: bool) -> None:
    """Keys by family, their number, bytes and lifetime."""
    from tidemill.cli.session import workspace

    with workspace() as opened:
        rows = opened.call(opened.cache.show)
    if as_json:
        write_json(rows)
    else:
        columns = ("family", "keys", "bytes", "seconds to live")
        write_table("", columns, [[getattr(row, name) for name in ("family", "keys", "bytes", "ttl")] for row in rows])


@cache.command()
@click.option("--pattern", default="*", show_default=True, help="Keys to remove, for example prices:AAPL or features:*.")
@json_option
def clear(pattern: str, as_json: bool) -> None:
    """Remove keys; what is asked for next is loaded again."""
    from tidemill.cli.session import workspace

    with workspace() as opened:
        removed = opened.call(opened.cache.clear, pattern)
    if as_json:
        write_json({"removed": removed})
    else:
        click.echo(f"{removed} keys removed.")
