"""Which running call a cancel means."""

from __future__ import annotations

import asyncio

from space.calls import Call, Calls
from space.content import Answer
from space.identity import Caller


async def forever() -> Answer:
    await asyncio.sleep(3600)
    return Answer(texts=("",))


def begin(calls: Calls, owner: str, conversation: str | None, request_id: str | int, connection: str | None) -> Call:
    caller = Caller(owner, conversation, owner != "anonymous")
    task = asyncio.create_task(forever())
    return calls.add(task, caller=caller, connection=connection, request_id=request_id)


async def test_over_sse_connection_and_id_say_it_all() -> None:
    calls = Calls()
    mine, other = begin(calls, "a", "c", 1, "x"), begin(calls, "a", "c", 1, "y")
    assert calls.cancel_on_connection("x", 1)
    assert mine.cancelled and not other.cancelled
    await calls.aclose()


async def test_a_cancel_that_overtakes_its_call_still_ends_it() -> None:
    calls = Calls()
    assert not calls.cancel_on_connection("x", 1)
    assert begin(calls, "a", "c", 1, "x").cancelled
    assert not begin(calls, "a", "c", 1, "x").cancelled
    await calls.aclose()


async def test_over_http_owner_and_id_are_enough_for_one_call() -> None:
    calls = Calls()
    call = begin(calls, "a", "c", 1, None)
    assert not calls.cancel_by_caller(Caller("b", "c", True), 1)
    assert not calls.cancel_by_caller(Caller("a", "c", True), 2)
    assert calls.cancel_by_caller(Caller("a", None, True), 1)
    assert call.cancelled
    await calls.aclose()


async def test_over_http_the_conversation_decides_between_two() -> None:
    calls = Calls()
    one, two = begin(calls, "a", "c1", 1, None), begin(calls, "a", "c2", 1, None)
    assert not calls.cancel_by_caller(Caller("a", None, True), 1)
    assert not calls.cancel_by_caller(Caller("a", "c3", True), 1)
    assert calls.cancel_by_caller(Caller("a", "c2", True), 1)
    assert two.cancelled and not one.cancelled
    await calls.aclose()


async def test_over_http_another_conversations_cancel_ends_nothing() -> None:
    calls = Calls()
    call = begin(calls, "a", "c1", 1, None)
    assert not calls.cancel_by_caller(Caller("a", "c2", True), 1)
    assert not call.cancelled
    await calls.aclose()


async def test_over_http_nobody_without_a_name_can_end_a_call() -> None:
    calls = Calls()
    call = begin(calls, "anonymous", None, 1, None)
    assert not calls.cancel_by_caller(Caller("anonymous", None, False), 1)
    assert not call.cancelled
    await calls.aclose()


async def test_a_call_that_came_over_sse_is_not_ended_over_http() -> None:
    calls = Calls()
    call = begin(calls, "a", "c", 1, "x")
    assert not calls.cancel_by_caller(Caller("a", "c", True), 1)
    await calls.aclose()
    assert call.task.cancelled() and len(calls) == 0
