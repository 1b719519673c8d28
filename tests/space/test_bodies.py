"""Bodies of MCP requests, before the SDK reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from space.bodies import MAX_BODY_BYTES, REFUSAL, BodyReader


class Seen:
    """Plays the SDK: takes what comes through; records what was refused or cancelled on the way."""

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.refusal: str | None = None
        self.cancelled: list[str | int] = []
        self.oversize = 0
        self.status: int | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body = (await receive())["body"]
        self.refusal = scope.get(REFUSAL)

    async def post(self, *chunks: bytes) -> Seen:
        waiting: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]

        async def receive() -> Message:
            return waiting.pop(0) if waiting else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            self.status = message.get("status", self.status)

        def oversize(scope: Scope) -> None:
            self.oversize += 1

        reader = BodyReader(self.app, lambda scope, request_id: self.cancelled.append(request_id), oversize)
        await reader({"type": "http", "method": "POST", "headers": []}, receive, send)
        return self


def call(request_id: Any, code: str, *, id_first: bool = False) -> bytes:
    params = {"name": "upload_file", "arguments": {"content": code}}
    message: dict[str, Any] = {"method": "tools/call", "params": params}
    envelope = {"jsonrpc": "2.0", "id": request_id}
    return json.dumps({**envelope, **message} if id_first else {**message, **envelope}).encode()


async def test_an_ordinary_body_comes_through_byte_for_byte() -> None:
    body = call(1, "print('ü')")
    seen = await Seen().post(body[:10], body[10:20], body[20:])
    assert seen.body == body and seen.refusal is None


async def test_a_body_of_exactly_the_limit_is_taken() -> None:
    body = b"x" * MAX_BODY_BYTES
    assert (await Seen().post(body)).body == body


@pytest.mark.parametrize("id_first", [True, False])
@pytest.mark.parametrize("request_id", [7, "seven"])
async def test_a_larger_call_is_answered_under_its_own_id(request_id: str | int, id_first: bool) -> None:
    body = call(request_id, "x" * MAX_BODY_BYTES, id_first=id_first)
    seen = await Seen().post(*(body[start : start + 65536] for start in range(0, len(body), 65536)))
    assert seen.body is not None and seen.refusal is not None
    message = json.loads(seen.body)
    assert (message["id"], message["method"], message["params"]["arguments"]) == (request_id, "tools/call", {})
    assert "8 MB" in seen.refusal and "upload_file" in seen.refusal
    assert seen.oversize == 1


async def test_an_id_inside_the_arguments_is_not_taken_for_the_calls() -> None:
    body = call(3, '"id": 99, "jsonrpc": "2.0"}' + "x" * MAX_BODY_BYTES + '"id":98}')
    seen = await Seen().post(body)
    assert seen.body is not None and json.loads(seen.body)["id"] == 3


async def test_a_large_body_that_is_no_call_gets_413() -> None:
    seen = await Seen().post(b"x" * (MAX_BODY_BYTES + 1))
    assert seen.status == 413 and seen.body is None


async def test_half_a_surrogate_pair_is_refused_and_a_whole_one_is_text() -> None:
    refused = await Seen().post(b'{"method":"tools/call","params":{"name":"x","arguments":{"code":"\\ud800"}},"id":4}')
    assert refused.body is not None and refused.refusal is not None
    assert json.loads(refused.body)["id"] == 4 and "surrogate" in refused.refusal
    whole = call(5, "😀")
    assert b"\\ud83d" in whole
    assert (await Seen().post(whole)).body == whole


async def test_a_cancel_is_noticed_and_passed_on() -> None:
    body = json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}}).encode()
    seen = await Seen().post(body)
    assert seen.cancelled == [3] and seen.body == body


@pytest.mark.parametrize(
    "body", [b"notifications/cancelled", b'{"method":"notifications/cancelled"}', b'["notifications/cancelled"]']
)
async def test_a_malformed_cancel_ends_nothing(body: bytes) -> None:
    seen = await Seen().post(body)
    assert seen.cancelled == [] and seen.body == body


async def test_code_that_speaks_of_cancels_cancels_nothing() -> None:
    body = call(1, '{"method": "notifications/cancelled", "params": {"requestId": 3}}')
    assert (await Seen().post(body)).cancelled == []
