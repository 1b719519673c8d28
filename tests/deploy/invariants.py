"""What must be true of every record of requests, whatever went wrong on the way."""

from __future__ import annotations

from tests.hub import Exchange, LocalHub


def nothing_leaked(hub: LocalHub, secrets: dict[str, str], tokens: tuple[str, ...]) -> None:
    """Never public, no secret before private was verified, and secrets nowhere but in the one route for them."""
    verified = False
    for exchange in hub.record:
        _no_secret_in_the_wrong_place(exchange, secrets, tokens)
        if exchange.route == "create":
            assert exchange.json["visibility"] == "private"
            assert not {"secrets", "variables"} & exchange.json.keys()
        if exchange.route == "settings":
            assert exchange.json == {"visibility": "private"}
        if exchange.route == "info" and exchange.status == 200:
            verified = exchange.answered["private"] is True and not exchange.fault
        if exchange.method != "GET" and exchange.route in ("secrets", "variables", "commit", "volumes", "preupload"):
            assert verified, f"{exchange} before the Space was seen to be private"
    assert all(space.private for space in hub.spaces.values())
    for space in hub.spaces.values():
        shown = str(space.variables) + "".join(map(str, space.files.values()))
        assert not any(secret in shown for secret in (*secrets.values(), *tokens))


def _no_secret_in_the_wrong_place(exchange: Exchange, secrets: dict[str, str], tokens: tuple[str, ...]) -> None:
    body = exchange.body.decode(errors="replace") + exchange.path + exchange.query
    if exchange.route == "commit":
        body += "".join(content.decode() for content in exchange.committed.values())
    for token in tokens:
        assert token not in body
    for value in secrets.values():
        assert value not in body or (exchange.route, exchange.method) == ("secrets", "POST")
