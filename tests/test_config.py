"""Settings: where they come from, what is refused, and that their page lists exactly them."""

import re
from pathlib import Path

import pytest

from tidemill.config import Secret, Settings, load_settings
from tidemill.domain.errors import ConfigError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_file_and_variables_the_defaults_hold(folder: Path) -> None:
    settings = load_settings({})
    assert settings == Settings(home=folder / ".tidemill")
    assert settings.lake == folder / ".tidemill" / "lake"
    assert settings.inbox == folder / ".tidemill" / "inbox"


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(folder: Path) -> None:
    Path("tidemill.yaml").write_text("connections: 5\nhttp_timeout: 2.5\nlake_path: ~/lake\n")
    settings = load_settings({"TIDEMILL_CONNECTIONS": "6", "TIDEMILL_HTTP_TIMEOUT": ""})
    assert (settings.connections, settings.http_timeout) == (6, 2.5)
    assert settings.lake == Path.home() / "lake"


def test_a_file_may_be_named(folder: Path) -> None:
    other = folder / "other.yaml"
    other.write_text("webserver_port: 4000\n")
    assert load_settings({"TIDEMILL_CONFIG": str(other)}).webserver_port == 4000
    assert load_settings({}, file=other).webserver_port == 4000
    other.write_text("")
    assert load_settings({}, file=other) == load_settings({})


def test_secrets_do_not_show_themselves() -> None:
    settings = load_settings({"TIDEMILL_POSTGRES_DSN": "postgresql://me:hunter2@here/db"})
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.postgres_dsn)
    assert settings.postgres_dsn == Secret("postgresql://me:hunter2@here/db")
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.reveal().endswith("hunter2@here/db")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONNECTIONS", "many"),
        ("CONNECTIONS", "0"),
        ("DATABASE_TIMEOUT", "nan"),
        ("DATABASE_TIMEOUT", "-1"),
        ("HTTP_TIMEOUT", "inf"),
        ("KEEPER_LINGER", "-1"),
        ("WEBSERVER_PORT", "99999"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name.lower()):
        load_settings({f"TIDEMILL_{name}": value})


@pytest.mark.parametrize("text", ["colour: red", "connections: []", "home: 5", "- a", "a: [", "\xff"])
def test_a_file_that_makes_no_sense_is_refused(folder: Path, text: str) -> None:
    Path("tidemill.yaml").write_bytes(text.encode("latin-1"))
    if text == "home: 5":  # a path like any other
        assert load_settings({}).home == folder / "5"
        return
    with pytest.raises(ConfigError):
        load_settings({})


def test_a_named_file_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load_settings({}, file=Path("nowhere.yaml"))


def test_the_page_lists_exactly_the_settings_with_their_variables_and_defaults() -> None:
    rows = {name: (variable, default) for name, variable, default, _ in ROW.findall(PAGE.read_text())}
    assert tuple(rows) == Settings.__struct_fields__
    defaults = Settings()
    for name, (variable, default) in rows.items():
        assert variable == f"TIDEMILL_{name.upper()}"
        value = getattr(defaults, name)
        if value is not None:
            assert default == f"`{value}`"
        else:
            assert default == "none" or default.endswith("in the home")
