"""The bridge of the synchronous doors."""

import asyncio

import pytest

from tidemill.study.workspace import LoopThread


def test_what_runs_in_the_loop_awaits_and_what_is_synchronous_there_may_ask_it_from_a_thread() -> None:
    loop = LoopThread()

    async def deep() -> int:
        return 1

    async def through_a_thread() -> int:
        return await deep() + await asyncio.to_thread(loop.call, deep)

    assert loop.call(through_a_thread) == 2
    loop.close()


def test_the_bridge_called_from_within_its_loop_says_so_instead_of_waiting_for_ever() -> None:
    loop = LoopThread()

    async def inner() -> None: ...

    async def outer() -> None:
        loop.call(inner)

    with pytest.raises(RuntimeError, match="Await it there"):
        loop.call(outer)
    loop.close()
