"""The stream that the page hears of its events on: what is asked for while it closes is answered, too."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import Opener
from tests.e2e.browser.driving import finished, open_tab, run, screen, start

HOLD = """
const real = window.fetch;
window.fetch = async (input, options) => {
  const answer = await real(input, options);
  if (!String(input.url ?? input).includes('/queue/data')) return answer;
  let rest = '';
  const late = new TransformStream({
    async transform(text, out) {
      const events = (rest + text).split('\\n\\n');
      rest = events.pop();
      for (const event of events) {
        if (event.includes('close_stream')) await new Promise((done) => setTimeout(done, MILLISECONDS));
        out.enqueue(event + '\\n\\n');
      }
    },
  });
  const body = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(late).pipeThrough(new TextEncoderStream());
  return new Response(body, { status: answer.status, headers: answer.headers });
};
"""
"""The word that the stream ends comes late, as it does through a slow network or to a busy browser."""


@pytest.fixture
def slow(opener: Opener) -> Page:
    """A page that hears of its stream's end only a while after it has ended."""
    return opener(script=HOLD.replace("MILLISECONDS", "1500"))


def test_what_is_pressed_while_the_stream_closes_is_answered(slow: Page) -> None:
    run(slow, "print('one')")
    open_tab(slow, "History")
    expect(slow.locator("#history .ci-entry")).to_have_count(1, timeout=8_000)
    open_tab(slow, "Run")
    for number in range(3):
        start(slow, f"import time\nprint('step', {number}); time.sleep(0.2); print('end', {number})")
        finished(slow)
        expect(screen(slow)).to_contain_text(f"end {number}")
