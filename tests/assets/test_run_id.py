"""What a run logs, and what it asks of other services, can be found by the run's id."""

import dagster as dg
import pytest

from resources.postgres import PostgresResource
from tidemill import telemetry
from tidemill.config import Settings


def test_whatever_a_run_does_carries_its_id_also_in_the_loop_of_its_workspace(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    monkeypatch.setenv("TIDEMILL_HOME", str(settings.home))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", settings.postgres_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", settings.redis_url.reveal())
    seen: list[str] = []

    async def asked() -> None:
        seen.append(telemetry.correlation_id())

    @dg.asset
    def worker(postgres: PostgresResource) -> None:
        seen.append(telemetry.correlation_id())
        postgres.workspace.call(asked)

    done = dg.materialize([worker], resources={"postgres": PostgresResource()})
    assert seen == [done.run_id, done.run_id]
    assert telemetry.correlation_id() == ""
