"""Headers become an owner and a conversation."""

from __future__ import annotations

import base64

import pytest

from executor.owners import ANONYMOUS, SINGLE_USER
from space.identity import BadIdentity, Caller, caller_of


def headers(user: str | bytes | None = None, conversation: str | None = None) -> list[tuple[bytes, bytes]]:
    found = [(b"host", b"localhost")]
    if user is not None:
        found.append((b"x-user-id", user if isinstance(user, bytes) else user.encode()))
    if conversation is not None:
        found.append((b"x-conversation-id", conversation.encode()))
    return found


def test_user_and_conversation_are_taken_from_their_headers() -> None:
    assert caller_of(headers("u1", "c1")) == Caller("u1", "c1", True)


def test_a_name_beyond_latin_1_arrives_in_base64() -> None:
    encoded = "b64:" + base64.b64encode("Zoë Ωmega".encode()).decode()
    assert caller_of(headers(encoded, "c1")).owner == "Zoë Ωmega"


@pytest.mark.parametrize(
    "unfilled", ["", "  ", "{{LIBRECHAT_USER_ID}}", "${USER_ID}", "undefined", "null", "b64:" + "e3tYfX0="]
)
def test_a_placeholder_that_was_not_filled_counts_as_missing(unfilled: str) -> None:
    caller = caller_of(headers(unfilled, "c1"))
    assert caller == Caller(ANONYMOUS, None, False, ("X-User-Id",))


def test_without_headers_a_caller_is_anonymous_and_told_what_is_missing() -> None:
    assert caller_of(headers()) == Caller(ANONYMOUS, None, False, ("X-User-Id", "X-Conversation-Id"))


def test_a_user_without_a_conversation_is_identified() -> None:
    assert caller_of(headers("u1", "{{LIBRECHAT_BODY_CONVERSATIONID}}")) == Caller(
        "u1", None, True, ("X-Conversation-Id",)
    )


def test_single_user_gives_all_callers_without_a_name_one_owner() -> None:
    assert caller_of(headers(), single_user=True) == Caller(SINGLE_USER, None, True, ("X-Conversation-Id",))
    assert caller_of(headers(None, "c1"), single_user=True) == Caller(SINGLE_USER, "c1", True)
    assert caller_of(headers("u1", "c1"), single_user=True) == Caller("u1", "c1", True)


@pytest.mark.parametrize("bad", ["a\tb", b"a\x00b", b"a\x85b", "x" * 257, "b64:@@@", "b64:/w==", "b64:YQpi"])
def test_what_cannot_be_an_id_is_refused(bad: str | bytes) -> None:
    with pytest.raises(BadIdentity, match="X-User-Id"):
        caller_of(headers(bad, "c1"))


@pytest.mark.parametrize("name", [ANONYMOUS, SINGLE_USER, "page:abc", "b64:" + base64.b64encode(b"anonymous").decode()])
def test_nobody_can_take_the_name_of_a_shared_owner(name: str) -> None:
    with pytest.raises(BadIdentity, match="reserved"):
        caller_of(headers(name, "c1"))


def test_two_different_users_in_one_request_are_refused() -> None:
    with pytest.raises(BadIdentity, match="twice"):
        caller_of([*headers("u1"), *headers("u2")])
    assert caller_of([*headers("u1"), *headers("u1")]).owner == "u1"
