"""The blocks for librechat.yaml and .env."""

from __future__ import annotations

import itertools

import pytest
import yaml

from space.librechat import env_block, has_request_headers, yaml_block

ADDRESS = "https://owner-space.hf.space"


def server(**options: object) -> dict[str, object]:
    block = yaml.safe_load(yaml_block(ADDRESS, **options))  # type: ignore[arg-type]
    return block["mcpServers"]["code"]


def test_the_block_is_yaml_with_token_identity_and_patience() -> None:
    assert server() == {
        "type": "sse",
        "url": f"{ADDRESS}/gradio_api/mcp/sse",
        "headers": {"Authorization": "Bearer ${HF_TOKEN}", "X-User-Id": "{{LIBRECHAT_USER_ID}}"},
        "requestHeaders": {"X-Conversation-Id": "{{LIBRECHAT_BODY_CONVERSATIONID}}"},
        "timeout": 300000,
        "initTimeout": 60000,
        "requiresOAuth": False,
        "serverInstructions": True,
    }


def test_an_older_librechat_gets_the_conversation_among_its_headers() -> None:
    old = server(version="0.8.7")
    assert "requestHeaders" not in old
    assert old["headers"]["X-Conversation-Id"] == "{{LIBRECHAT_BODY_CONVERSATIONID}}"


def test_streamable_http_has_an_address_of_its_own() -> None:
    block = server(transport="streamable-http")
    assert (block["type"], block["url"]) == ("streamable-http", f"{ADDRESS}/gradio_api/mcp/")


def test_the_token_can_travel_in_the_header_that_the_proxy_strips() -> None:
    headers = server(auth_header="X-HF-Authorization")["headers"]
    assert headers["X-HF-Authorization"] == "Bearer ${HF_TOKEN}" and "Authorization" not in headers


def test_an_access_key_is_named_in_both_blocks_and_never_written_out() -> None:
    assert server(access_key=True)["headers"]["X-Access-Key"] == "${CODE_ACCESS_KEY}"
    assert env_block(access_key=True).splitlines()[1].startswith("CODE_ACCESS_KEY=")


@pytest.mark.parametrize(
    ("auth", "key"), list(itertools.product(("Authorization", "X-HF-Authorization", None), (True, False)))
)
def test_every_variable_of_the_yaml_is_in_the_env_block(auth: str | None, key: bool) -> None:
    block = yaml_block(ADDRESS, auth_header=auth, access_key=key)
    wanted = {part.split("}")[0] for part in block.split("${")[1:]}
    given = {line.split("=")[0] for line in env_block(auth_header=auth, access_key=key).splitlines()}
    assert wanted == given


def test_a_private_address_is_named_as_allowed() -> None:
    block = yaml.safe_load(yaml_block("http://127.0.0.1:7860/", auth_header=None))
    assert block["mcpSettings"]["allowedAddresses"] == ["127.0.0.1:7860"]
    assert block["mcpServers"]["code"]["url"] == "http://127.0.0.1:7860/gradio_api/mcp/sse"


def test_a_whole_file_begins_with_its_version() -> None:
    assert yaml_block(ADDRESS, whole_file=True).startswith("version: ")


@pytest.mark.parametrize("address", ["owner-space.hf.space", "ftp://x", "https://", "https://x/?a=b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        yaml_block(address)


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.8.7", False), ("v0.8.8-rc1", False), ("v0.8.8-rc4", True), ("0.8.8", True), ("v0.9.0", True), ("1.0.0", True)],
)
def test_request_headers_came_with_0_8_8(version: str, known: bool) -> None:
    assert has_request_headers(version) is known


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.8\.8"):
        has_request_headers("latest")
