"""The view for MCP Apps in a real browser: in the frame that a chat would give it, under the policy it asks for."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from space import apps

POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' https:; style-src 'self' 'unsafe-inline' https:; "
    "img-src 'self' data: https:; font-src 'self' https:; connect-src 'none'; frame-src 'none'; base-uri 'self'"
)
HOST = """<!doctype html><script>
window.heard = [];
addEventListener('message', (event) => {
  const frame = document.querySelector('iframe');
  heard.push([event.source === frame.contentWindow, event.data]);
  if (event.source !== frame.contentWindow) return;
  const { id, method, params } = event.data;
  const answer = (message) => frame.contentWindow.postMessage({ jsonrpc: '2.0', ...message }, '*');
  if (method === 'ui/initialize') answer({ id, result: { protocolVersion: '2026-01-26', hostInfo: {},
    hostCapabilities: { openLinks: {} }, hostContext: { theme: 'dark', styles: { variables: {
    '--color-text-primary': 'rgb(1, 2, 3)' } } } } });
  if (method === 'ui/notifications/initialized') answer({ method: 'ui/notifications/tool-result', params: RESULT });
  if (method === 'ui/open-link') answer({ id, result: {} });
  if (method === 'ui/notifications/size-changed') frame.style.height = params.height + 'px';
});
</script><iframe sandbox="allow-scripts" style="width: 600px" srcdoc="VIEW"></iframe>"""

Shower = Callable[[dict[str, Any]], Page]


@pytest.fixture
def show(browser: Browser) -> Any:
    """Opens a chat that shows this result in the view."""
    context = browser.new_context()

    def one(result: dict[str, Any]) -> Page:
        page = context.new_page()
        policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        view = html.escape(apps.template().replace("<head>", f"<head>{policy}", 1))
        page.set_content(HOST.replace("RESULT", json.dumps(result).replace("</", "<\\/")).replace("VIEW", view))
        return page

    yield one
    context.close()


def test_a_figure_is_drawn_in_a_frame_that_fits_it_and_reaches_nothing(show: Shower) -> None:
    figure = """<div id=f style="height:321px">empty</div><script>
        document.getElementById('f').textContent = 'drawn in ' + self.origin;
        for (const above of [parent, top]) try { above.stolen = 1; } catch (error) {}
        top.postMessage({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: {} }, '*');
        parent.postMessage({ jsonrpc: '2.0', method: 'ui/notifications/tool-result', params: {} }, '*');
    </script>"""
    page = show({"content": [], "_meta": {apps.VIEWS: [figure]}})
    inner = page.frame_locator("iframe").frame_locator("iframe")
    expect(inner.locator("#f")).to_have_text("drawn in null")
    page.wait_for_function("parseInt(document.querySelector('iframe').style.height) >= 321")
    assert page.evaluate("typeof window.stolen") == "undefined"
    # what it says upwards does not come from the view's own window, by which a chat knows it
    calls = [own for own, data in page.evaluate("heard") if data.get("method") == "tools/call"]
    assert calls == [False]
    expect(inner.locator("#f")).to_be_visible()


def test_pictures_and_files_are_shown_and_a_link_goes_through_the_chat(show: Shower) -> None:
    data = io.BytesIO()
    Image.new("RGB", (300, 200), "navy").save(data, "PNG")
    url = "https://example.com/files/token"
    page = show(
        {
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image", "mimeType": "image/png", "data": base64.b64encode(data.getvalue()).decode()},
            ],
            "structuredContent": {
                "files": [
                    {"path": "<b>a.csv", "size": 1234, "url": url},
                    {"path": "none.txt", "size": 1},
                    {"path": "bad", "size": 1, "url": "javascript:alert(1)"},
                ]
            },
        }
    )
    view = page.frame_locator("iframe")
    expect(view.locator("img")).to_be_visible()
    page.wait_for_function("parseInt(document.querySelector('iframe').style.height) > 200")
    expect(view.locator("li")).to_have_text(["<b>a.csv 1,234 bytes"])
    view.locator("a").click()
    page.wait_for_function("heard.some(([, data]) => data.method === 'ui/open-link')")
    opened = [data["params"]["url"] for _, data in page.evaluate("heard") if data.get("method") == "ui/open-link"]
    assert opened == [url]


def test_a_result_with_nothing_to_look_at_takes_no_room(show: Shower) -> None:
    page = show({"content": [{"type": "text", "text": "42"}], "structuredContent": {"files": []}})
    page.wait_for_function("document.querySelector('iframe').style.height === '0px'")
