"""What goes to LibreChat's side, and the proxy that opens signed links and nothing else."""

from __future__ import annotations

import re

import pytest
import yaml

from deploy.errors import DeployError
from deploy.librechat import blocks, write_override
from executor.settings import Settings
from space.links import Grant, Links

ADDRESS = "https://ada-code.hf.space"


def block(**changes: object) -> str:
    wanted = {
        "transport": "sse", "version": "0.8.8", "auth_header": "Authorization", "access_key": False,
        "whole_file": False,
    }  # fmt: skip
    return blocks(ADDRESS, **{**wanted, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("transport", ["sse", "streamable-http"])
@pytest.mark.parametrize("header", ["Authorization", "X-HF-Authorization"])
def test_the_block_is_yaml_with_the_token_by_name_only(transport, header) -> None:
    text = block(transport=transport, auth_header=header)
    server = yaml.safe_load(text.split("# into LibreChat's .env")[0])["mcpServers"]["code"]
    assert server["type"] == transport
    assert server["headers"][header] == "Bearer ${HF_TOKEN}"
    assert "HF_TOKEN=" in text
    assert "wake" in text, "how to live with a sleeping Space is said where it is needed"


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(DeployError, match="version"):
        block(version="latest")


def test_the_override_is_a_compose_file_whose_proxy_has_the_least_rights(tmp_path) -> None:
    paths = write_override(tmp_path, address=ADDRESS, public_base_url="https://links.example.org/")
    assert {p.relative_to(tmp_path).as_posix() for p in paths} == {
        "docker-compose.override.yml",
        "code-interpreter-links/Caddyfile",
    }
    compose = yaml.safe_load((tmp_path / "docker-compose.override.yml").read_text())
    proxy = compose["services"]["code-interpreter-links"]
    assert proxy["read_only"] is True
    assert proxy["cap_drop"] == ["ALL"]
    assert proxy["cap_add"] == ["NET_BIND_SERVICE"], "without it the image's caddy cannot be executed at all"
    caddy = (tmp_path / "code-interpreter-links" / "Caddyfile").read_text()
    assert f"reverse_proxy {ADDRESS}" in caddy
    assert "https://links.example.org" in caddy
    assert "@SPACE@" not in caddy
    assert "hf_" not in caddy + str(compose)


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        ("/files/abc.def-123_", True),
        ("/upload/abc.def-123_", True),
        ("/files/", False),
        ("/session/abc", False),
        ("/filesystem/abc", False),
        ("/", False),
        ("/gradio_api/mcp/sse", False),
        ("/gradio_api/mcp/messages/x", False),
        ("/metrics", False),
        ("/healthz", False),
        ("/x/files/abc", False),
    ],
)
def test_the_proxy_opens_signed_links_only(tmp_path, path, opened) -> None:
    write_override(tmp_path, address=ADDRESS, public_base_url="http://localhost:7861")
    caddy = (tmp_path / "code-interpreter-links" / "Caddyfile").read_text()
    (pattern,) = re.findall(r"path_regexp (\S+)", caddy)
    assert bool(re.search(pattern, path)) == opened


def test_the_proxy_sends_a_link_to_a_page_on_to_the_space(tmp_path) -> None:
    link = Links(Settings()).page(Grant("ann", None, "s" * 16))
    assert re.fullmatch(r"/\?session=[\w-]+", link), "what the proxy looks for"
    write_override(tmp_path, address=ADDRESS, public_base_url="http://localhost:7861")
    caddy = (tmp_path / "code-interpreter-links" / "Caddyfile").read_text()
    page = rf"@page {{\s+path /\s+query session=\*\s+}}\s+handle @page {{\s+redir {ADDRESS}{{uri}} 302"
    assert re.search(page, caddy)


def test_files_of_the_user_are_never_overwritten(tmp_path) -> None:
    mine = tmp_path / "docker-compose.override.yml"
    mine.write_text("services: {}\n")
    with pytest.raises(DeployError, match="exists and is different"):
        write_override(tmp_path, address=ADDRESS, public_base_url="http://localhost:7861")
    assert mine.read_text() == "services: {}\n"
    mine.unlink()
    for _ in range(2):
        write_override(tmp_path, address=ADDRESS, public_base_url="http://localhost:7861")
