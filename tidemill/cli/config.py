"""`tidemill config`: the settings in force, and a check of a settings file."""

from pathlib import Path

import click
import msgspec

from tidemill.cli.common.output import json_option, write_json, write_table


@click.group()
def config() -> None:
    """Show the settings in force and check a settings file."""


@config.command()
@json_option
def show(as_json: bool) -> None:
    """Settings after defaults, file and environment; secrets masked."""
    from tidemill.config import load_settings

    values = {
        name: value if isinstance(value, int | float) else str(value)
        for name, value in msgspec.structs.asdict(load_settings()).items()
    }
    if as_json:
        write_json(values)
    else:
        write_table("", ("setting", "value"), [(name, str(value)) for name, value in values.items()])


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a settings file by itself; exit code 1 and one sentence when it is wrong."""
    from tidemill.config import load_settings

    load_settings(environment={}, file=file)
    if as_json:
        write_json({"file": str(file), "valid": True})
    else:
        click.echo(f"{file} is valid.")
