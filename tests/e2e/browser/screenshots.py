"""Takes the pictures of docs/screenshots from a Space that runs: `python -m tests.e2e.browser.screenshots`."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.browser.conftest import CHROMIUM
from tests.e2e.browser.driving import ADMIN_KEY, FLAGS, open_page, open_tab, run, shown, start
from tests.e2e.running import ROOT, RunningSpace

FOLDER = ROOT / "docs" / "screenshots"
MAX_BYTES = 150_000
PLOT = """t = np.linspace(0, 4 * np.pi, 600)
plt.plot(t, np.sin(t) * np.exp(-t / 8), label="damped")
plt.plot(t, np.cos(t), alpha=0.5, label="cosine")
plt.title("Two waves")
plt.legend()"""
TABLE = """df = pd.DataFrame({"city": ["Oslo", "Rome", "Cairo", "Lima"], "degrees": [6, 16, 22, 19]})
df.to_csv("cities.csv", index=False)
print(len(df), "cities")
df.sort_values("degrees")"""


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """The page as a PNG of few colours, under `MAX_BYTES`."""
    page.wait_for_timeout(600)
    taken = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    path = FOLDER / f"{name}.png"
    taken.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(ROOT)}: {taken.width} by {taken.height}, {size:,} bytes\n")
    if size > MAX_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} belong into the repository.")


def take(browser: Browser, url: str) -> None:
    """Every main state of the page."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    desk = open_page(browser, url, [], viewport={"width": 1100, "height": 860})
    run(desk, TABLE)
    expect(shown(desk).locator("iframe")).to_be_visible()
    run(desk, PLOT)
    expect(shown(desk).locator(".ci-picture button img")).to_be_visible()
    save(desk, "run", whole=True)
    for name in ("Files", "History", "Connect"):
        open_tab(desk, name)
        save(desk, name.lower())
    phone = open_page(
        browser, url, [], viewport={"width": 390, "height": 1240}, is_mobile=True, has_touch=True, color_scheme="dark"
    )
    run(phone, TABLE)
    expect(phone.frame_locator("#shown iframe").locator("table")).to_be_visible()
    save(phone, "phone-dark")
    busy = open_page(browser, url, [])
    start(busy, "import time\nwhile True: time.sleep(0.1)")
    operator = open_page(browser, url, [], viewport={"width": 1100, "height": 860})
    open_tab(operator, "Operator")
    operator.locator("#admin-key input").fill(ADMIN_KEY)
    operator.locator("#admin-open").click()
    expect(operator.locator("#operator-sessions tbody tr", has_text="python,")).to_have_count(1)
    operator.wait_for_timeout(16_000)  # until every session was measured once, and the charts have points
    save(operator, "operator")


def main() -> int:
    """Start a Space, take the pictures, stop it; returns the exit code."""
    if CHROMIUM is None:
        sys.stderr.write("No Chromium here: install Debian's package chromium.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        space = RunningSpace.start(Path(folder), ADMIN_KEY=ADMIN_KEY)
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            take(browser, space.url)
            browser.close()
        finally:
            space.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
