"""Buttons in tables: HTML on the page, an event with the row's name on the server."""

from __future__ import annotations

from html import escape

import gradio as gr

from space.content import clean

ON_CLICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (!button) return;
  if (button.dataset.sure && button.textContent !== button.dataset.sure) {
    const label = button.textContent;
    button.textContent = button.dataset.sure;
    setTimeout(() => { button.textContent = label; }, 4000);
    return;
  }
  const input = button.parentElement.querySelector('input');
  trigger(button.dataset.act, { name: button.dataset.name, text: input ? input.value : '' });
});
element.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && event.target.matches('input'))
    event.target.parentElement.querySelector('button[data-act]')?.click();
});
"""
"""For `gr.HTML(js_on_load=…)`: a click on a `button` triggers the event that it is named for. (`confirm()` cannot ask
whether one is sure: browsers block it in the frame that Hugging Face shows a Space in.)"""

_MOST = 4096


def button(act: str, label: str, name: str, *, sure: str = "") -> str:
    """A button that triggers `act`, one of Gradio's events; with `sure`, only the second click does."""
    asked = f' data-sure="{escape(sure)}"' if sure else ""
    return (
        f'<button type="button" class="ci-act" data-act="{escape(act)}" data-name="{escape(clean(name))}"{asked}>'
        f"{escape(label)}</button>"
    )


def said(event: gr.EventData, key: str) -> str:
    """What the browser sent with the event: `name`, or the `text` of the input beside the button; never trusted."""
    try:
        value = getattr(event, key)
    except AttributeError:
        return ""
    return value[:_MOST] if isinstance(value, str) else ""
