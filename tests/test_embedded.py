"""The embedded servers through their public door."""

import asyncpg

from tidemill.config import Secret


async def test_a_fresh_database_is_empty_and_ours(fresh_dsn: Secret) -> None:
    connection = await asyncpg.connect(fresh_dsn.reveal())
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE TABLE t (i int)")
    await connection.close()


def test_redis_is_empty(redis_url: Secret) -> None:
    import redis

    with redis.Redis.from_url(redis_url.reveal()) as client:
        assert client.dbsize() == 0
