"""Redaction: no secret gets through, whatever form it has, and ordinary words do."""

from __future__ import annotations

import json
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.settings import Settings
from monitoring.redaction import REDACTED, Redactor, is_secret_key

TOKEN = "hf_" + "aBcDeFgHiJkLmNoP"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        "authorization: Bearer xyz123456",
        "{'authorization': 'Bearer xyz123456'}",
        '{"Authorization": "Basic xyz123456"}',
        "[(b'host', b'a'), (b'authorization', b'Bearer xyz123456')]",
        "x-hf-authorization=xyz123456",
        "'X-Access-Key': 'xyz123456'",
        "(b'x-access-key', b'xyz123456')",
        "Cookie: space_access=xyz123456; theme=dark",
        "GET /metrics?key=xyz123456 HTTP/1.1",
        "GET /gradio_api/mcp/messages/?session_id=xyz123456 HTTP/1.1",
        "https://host/a?b=1&token=xyz123456&c=2",
        "GET /?session=xyz123456 HTTP/1.1",
        "https://host/?__theme=dark&session=xyz123456",
        "GET /files/xyz123456.abcdefgh.0123456789 HTTP/1.1",
        "https://host/upload/xyz123456.abcdefgh.0123456789",
        "connect to https://user:xyz123456@host/path",
        "HF_TOKEN=xyz123456",
        "password=xyz123456",
        "client_secret: 'xyz123456'",
    ],
)
def test_what_looks_like_a_secret_is_replaced(text: str) -> None:
    clean = Redactor().text(text)
    assert "xyz123456" not in clean
    assert TOKEN not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        "Started server process [12]",
        "KeyError: 'a' in the third row",
        "SyntaxError: invalid token, line 3",
        "the keys: a, b and c",
        "basic needs: food and water",
        "GET /files/ HTTP/1.1",
        "session=closed, 3 left",
        "https://host:8080/page?tab=run&sort=asc",
        "monkey: banana, donkey=carrot",
        "read 512 tokens of text",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert Redactor().text(text) == text


def test_known_values_are_replaced_in_every_form_they_take() -> None:
    secret = 'pä"ss\\wo/rd & more'
    redactor = Redactor([secret])
    for form in (
        secret,
        json.dumps({"a": secret}),
        json.dumps({"a": secret}, ensure_ascii=False),
        repr(secret),
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
    ):
        assert REDACTED in redactor.text(f"before {form} after"), form


def test_secrets_come_from_the_settings_and_from_variables_named_like_secrets() -> None:
    settings = Settings(access_key="door-key", admin_key="admin-key", metrics_key="scrape-key", log_salt="salty-salt")
    environ = {
        "HF_TOKEN": "from-env-1",
        "AWS_SECRET_ACCESS_KEY": "from-env-2",
        "DB_PASSWORD": "from-env-3",
        "OPENAI_API_KEY": "from-env-4",
        "HOME": "/home/somebody",
        "AUTH_MODE": "none",
        "SHORT_TOKEN": "only-7c",
        "TOKEN_FILE": "/run/a-token",
        "LANG": "C.UTF-8-long",
    }
    text = "door-key admin-key scrape-key salty-salt from-env-1 from-env-2 from-env-3 from-env-4 "
    others = "none only-7c /run/a-token"
    clean = Redactor.of(settings, environ).text(text + others)
    assert clean == f"{REDACTED} " * 8 + others


def test_nested_data_is_cleaned_by_key_and_by_value() -> None:
    redactor = Redactor(["known-value"])
    data = {
        "headers": {"Authorization": "x", "Accept": "text/html", "X-Hf-Authorization": ["a", "b"]},
        "raw": [(b"cookie", b"abc"), (b"host", b"here")],
        "list": ["a known-value", {"deep": ("known-value",)}],
        "api_key": {"even": "a dict"},
        "known-value": 1,
        "count": 3,
        "admin_key": "not set",
        "other": object,
    }
    clean = redactor.data(data)
    assert clean["headers"] == {"Authorization": REDACTED, "Accept": "text/html", "X-Hf-Authorization": REDACTED}
    assert clean["raw"] == [["cookie", REDACTED], ["host", "here"]]
    assert clean["list"] == [f"a {REDACTED}", {"deep": [REDACTED]}]
    assert clean["api_key"] == REDACTED
    assert (clean["count"], clean["admin_key"], clean[REDACTED]) == (3, "not set", 1)


@pytest.mark.parametrize(
    "run", ["_", "_-", "0", "key: a; ", "bearer+", "://a:", "https://", "/files/", "'key': ", "?key="]
)
@pytest.mark.parametrize("end", ["", "key", "authorization=", "bearer", "://x"])
def test_a_hostile_text_costs_no_more_than_its_length(run: str, end: str) -> None:
    began = time.process_time()
    Redactor().text(run * (10_000 // len(run)) + end)
    assert time.process_time() - began < 2


def test_data_that_contains_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "nested too deeply" in str(Redactor().data(loop))


@given(
    st.text(max_size=200),
    st.text(alphabet=st.characters(codec="utf-8"), min_size=6, max_size=30),
    st.text(max_size=200),
)
def test_a_known_value_never_survives_in_a_line(before: str, secret: str, after: str) -> None:
    redactor = Redactor([secret])
    if secret in REDACTED:
        return
    line = redactor.line({"event": before + secret + after, "n": 1})
    assert secret not in line["event"]


@given(st.text(max_size=2000))
def test_any_text_can_be_cleaned_and_cleaning_twice_changes_nothing_more(text: str) -> None:
    redactor = Redactor(["some-known-value"])
    once = redactor.text(text)
    assert redactor.text(once) == once


def test_a_clean_flat_line_is_returned_untouched() -> None:
    line = {"event": "execution", "language": "python", "seconds": 0.1, "files": None}
    assert Redactor(["known-value"]).line(line) is line


def test_secret_names_are_known_by_their_parts() -> None:
    secret = "Authorization X-HF-Authorization cookie set-cookie access_token HF_TOKEN password client_secret api-key"
    assert all(is_secret_key(key) for key in secret.split())
    plain = "status language key_count owner session code_sha256 monkey return_code"
    assert not any(is_secret_key(key) for key in plain.split())
