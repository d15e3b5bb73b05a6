"""The only reader of environment and settings files.

Settings come from defaults, then a YAML file (`TIDEMILL_CONFIG`, or `tidemill.yaml` where the command runs), then `TIDEMILL_*`
variables. An unknown key is an error. msgspec instead of pydantic-settings: its import costs 40 ms instead of 210, and `data
show` has 400 ms for everything (docs/decisions/0003-settings-without-pydantic.md).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tidemill.domain.errors import ConfigError


class Secret:
    """A text that does not show itself in logs, tracebacks or `repr`; `.reveal()` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


_Seconds = Annotated[float, msgspec.Meta(gt=0.0, le=86_400.0)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an installation can be told. Times in seconds.

    connections: budget of Postgres connections for all pools of one process.
    database_timeout: no database call takes longer; then DeadlineError.
    import_folder: watched by the `new_data` sensor; files put there are imported.
    modules: files of one's own features, labels, engines and strategies that every process knows, the web UI's graph too.
    module_seconds, module_memory: what one call of a module's function may take, by the clock and in MiB.
    engine_seconds: what one call of a module's engine or strategy may take, by the clock.
    """

    home: Path = Path(".tidemill")
    postgres_dsn: Secret | None = None
    redis_url: Secret | None = None
    connections: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 8
    database_timeout: _Seconds = 4.0
    keeper_linger: Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)] = 10.0
    http_timeout: _Seconds = 10.0
    cache_prices: _Seconds = 120.0
    cache_features: _Seconds = 600.0
    cache_predictions: _Seconds = 300.0
    cache_metrics: _Seconds = 3_600.0
    import_folder: Path | None = None
    modules: tuple[Path, ...] = ()
    module_seconds: _Seconds = 60.0
    module_memory: Annotated[int, msgspec.Meta(ge=512, le=1_048_576)] = 4_096
    engine_seconds: _Seconds = 3_600.0
    lake_path: Path | None = None
    webserver_port: _Port = 3000
    jupyter_port: _Port = 8888
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "warning"

    @property
    def lake(self) -> Path:
        return self.lake_path or self.home / "lake"

    @property
    def inbox(self) -> Path:
        return self.import_folder or self.home / "inbox"


def _decode(kind: type, value: object) -> Any:
    if kind is Secret:
        return Secret(str(value))
    if kind is Path:
        return Path(str(value)).expanduser()
    raise NotImplementedError(kind)


def load_settings(environment: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Settings in force for this process.

    environment: variables to read (default: the process's own). file: a YAML file that must exist when given.
    Raises ConfigError with one sentence when a key is unknown or a value does not fit.
    """
    variables = os.environ if environment is None else environment
    values: dict[str, object] = {}
    named = file or (Path(variables["TIDEMILL_CONFIG"]) if variables.get("TIDEMILL_CONFIG") else None)
    path = named or Path("tidemill.yaml")
    if named is not None and not path.is_file():
        raise ConfigError(f"The settings file {path} does not exist. Correct TIDEMILL_CONFIG or create the file.")
    if path.is_file():
        import yaml  # only when there is a file: 40 ms

        try:
            read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            raise ConfigError(f"The settings file {path} is not valid YAML: {str(exc).splitlines()[0]}.") from exc
        if not isinstance(read, dict):
            raise ConfigError(f"The settings file {path} must hold `key: value` lines.")
        values.update(read)
    for field in Settings.__struct_fields__:
        text = variables.get(f"TIDEMILL_{field.upper()}")
        if text:
            values[field] = text.split(os.pathsep) if field == "modules" else text
    try:
        settings = msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"A setting is wrong: {exc}. See docs/settings.md; correct {path} or the variable.") from exc
    return msgspec.structs.replace(settings, home=settings.home.absolute())
