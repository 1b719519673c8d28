"""Running code on the page, in a real browser."""

from __future__ import annotations

import json
import re
import time
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import Opener
from tests.e2e.browser.driving import WAIT, editor, expect_sessions, finished, open_tab, run, screen, shown, start


def test_code_runs_in_each_of_the_three_languages(page: Page) -> None:
    for language, code, said in (
        ("Python", "print(6 * 7, 'python')", "42 python"),
        ("JavaScript", "console.log([1, 2].map((n) => n * 21))", "[ 21, 42 ]"),
        ("bash", "echo $((40 + 2)) bash", "42 bash"),
    ):
        run(page, code, language)
        expect(screen(page)).to_contain_text(said)
        expect(screen(page)).to_contain_text("Done")


def test_the_page_opens_and_answers_quickly(opener: Opener, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    page = opener()
    opened = time.monotonic() - began
    run(page, "1 + 1")
    taken = []
    for number in range(8):
        editor(page).fill(f"{number} + 1000")
        milliseconds = page.evaluate(
            """(wanted) => new Promise((done) => {
                const began = performance.now();
                const press = () => document.querySelector('#run').click();
                const again = setInterval(press, 1000);  // Gradio drops a click before it heard of the last run's end
                const look = new MutationObserver(() => {
                    if (document.querySelector('#shown .ci-value')?.innerText.trim() === wanted) {
                        look.disconnect();
                        clearInterval(again);
                        done(performance.now() - began);
                    }
                });
                look.observe(document.querySelector('#shown'), { childList: true, subtree: true, characterData: true });
                press();
            })""",
            f"{number + 1000}",
        )
        taken.append(milliseconds)
        finished(page)
    with capsys.disabled():
        print(f"\nto a Run button that works: {opened:.2f} s; from Run to its value: {sorted(taken)[4]:.0f} ms")
    assert opened < 15
    assert min(taken) < 300  # other work on this machine can only make it longer


def test_control_and_enter_run_the_code_and_add_no_line(page: Page) -> None:
    code = editor(page)
    code.fill("print('by key')")
    code.press("Control+Enter")
    expect(screen(page)).to_contain_text("by key")
    expect(page.locator("#code .cm-line")).to_have_count(1)


def test_output_is_seen_while_the_code_still_runs(page: Page) -> None:
    start(page, "import time\nfor n in range(1, 60):\n    print('step', n, flush=True)\n    time.sleep(0.5)")
    expect(screen(page)).to_contain_text("step 1")
    early = screen(page).inner_text()
    assert "step 59" not in early and "Running" in early
    page.locator("#stop").click()
    finished(page)
    expect(screen(page)).to_contain_text("step 1")


def test_the_last_line_of_a_burst_is_seen_though_nothing_follows(page: Page) -> None:
    start(page, "import time\nprint('first')\ntime.sleep(0.03)\nprint('second')\ntime.sleep(60)")
    expect(screen(page)).to_contain_text("second", timeout=10_000)
    page.locator("#stop").click()
    finished(page)


def test_an_endless_loop_is_stopped_and_the_variables_stay(page: Page) -> None:
    run(page, "kept = 'still here'")
    start(page, "print('looping', flush=True)\nwhile True: pass")
    expect(screen(page)).to_contain_text("looping")
    page.locator("#stop").click()
    finished(page)
    expect(screen(page)).to_contain_text("Stopped")
    run(page, "print(kept)")
    expect(screen(page)).to_contain_text("still here")


def test_stop_says_so_when_nothing_runs(page: Page) -> None:
    page.locator("#stop").click()
    expect(page.get_by_text("Nothing is running.")).to_be_visible()


def test_a_plot_appears_and_opens_at_full_size(page: Page) -> None:
    run(page, "fig = plt.figure(figsize=(16, 12), dpi=200)\nplt.plot([1, 4, 9])\nplt.title('squares')\nplt.show()")
    small = shown(page).locator(".ci-picture button img")
    expect(small).to_be_visible()
    page.wait_for_function("document.querySelector('.ci-picture button img').naturalWidth > 100")
    small.click()
    full = shown(page).locator(".ci-full img")
    expect(full).to_be_visible()
    page.wait_for_function("document.querySelector('.ci-full img').naturalWidth === 3200")
    full.click()
    expect(full).to_be_hidden()


def test_a_table_is_shown_in_a_frame(page: Page) -> None:
    run(page, "pd.DataFrame({'city': ['Oslo', 'Rome'], 'degrees': [6, 16]})")
    table = page.frame_locator("#shown iframe").locator("table")
    expect(table).to_contain_text("Oslo")
    expect(table).to_contain_text("degrees")


def test_the_variables_that_a_cell_made_are_listed(page: Page) -> None:
    run(page, "before = 1")
    run(page, "answer = 42\nnames = ['a', 'b']")
    shown(page).get_by_text("Variables, new or changed: 2").click()
    changed, known = shown(page).locator(".ci-variables").all()
    expect(changed.locator("tr", has_text="answer")).to_contain_text("42")
    expect(changed.locator("tr", has_text="names")).to_contain_text("list")
    known.get_by_text("All variables: 3").click()
    expect(known.locator("tr", has_text="before")).to_contain_text("int")


def test_an_error_is_shown_with_its_line(page: Page) -> None:
    run(page, "x = 1\nx / 0")
    expect(screen(page)).to_contain_text("ZeroDivisionError: division by zero (line 2)")


HOSTILE = """
from IPython.display import HTML, SVG, display
html = '''<script>parent.stolen = 1; top.stolen = 2</script><img src=x onerror="parent.stolen = 3">
<form action="/gradio_api/queue/join" method=post><input name=a></form>
<meta http-equiv=refresh content="0;url=/healthz"><iframe src="javascript:parent.parent.stolen = 4"></iframe>
</iframe><script>window.stolen = 5</script>"><script>stolen = 6</script>
<p id=innocent>seen</p>'''
display(HTML(html))
display(SVG(data='<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40" onload="parent.stolen = 7">'
    '<script>parent.stolen = 8; window.stolen = 9</script><circle r="20" cx="20" cy="20"/></svg>'))
print('<img src=x onerror="window.stolen = 10"><script>window.stolen = 11</script> ${stolen = 12} {{value}}')
print("end")
"<b onmouseover=stolen=13>text</b>"
"""


def test_html_and_svg_of_the_guest_run_no_script_and_reach_nothing(opener: Opener) -> None:
    page = opener(errors_expected=True)  # the browser tells of every script that it refused
    run(page, HOSTILE)
    expect(page.frame_locator("#shown iframe").locator("#innocent")).to_have_text("seen")
    expect(screen(page)).to_contain_text('<img src=x onerror="window.stolen = 10">')
    expect(screen(page)).to_contain_text("${stolen = 12} {{value}}")
    expect(shown(page)).to_contain_text("<b onmouseover=stolen=13>text</b>")
    page.wait_for_timeout(500)
    assert page.evaluate("typeof window.stolen") == "undefined"
    assert shown(page).locator("iframe").first.get_attribute("sandbox") == ""
    assert all(frame.evaluate("self.origin") == "null" for frame in page.frames[1:2])


def test_two_pages_never_see_each_others_session(opener: Opener) -> None:
    first, second = opener(), opener()
    third = first.context.new_page()  # another tab of the same browser
    third.goto(first.url)
    expect(third.locator("#run")).to_be_enabled()
    run(first, "secret = 'mine'\nopen('mine.txt', 'w').write(secret)")
    for other in (second, third):
        run(other, "print('secret' in globals())\nimport os\nprint(os.listdir())")
        expect(screen(other)).to_contain_text("False")
        assert "mine.txt" not in screen(other).inner_text()
        expect_sessions(other, 1)
        open_tab(other, "History")
        expect(other.locator("#history .ci-entry")).to_have_count(1)
    run(first, "print(secret)")
    expect(screen(first)).to_contain_text("mine")


def test_a_reload_finds_the_session_and_the_code_that_runs(opener: Opener) -> None:
    page = opener(errors_expected=True)  # Gradio tells of the stream that the reload cut off
    run(page, "kept = 7")
    start(
        page, "import time\nfor n in range(130):\n    print('tick', n, flush=True)\n    time.sleep(0.2)\n    kept += 0"
    )
    expect(screen(page)).to_contain_text("tick 0")
    page.reload()
    expect(page.locator("#run")).to_be_enabled()
    expect(screen(page)).to_contain_text("tick 5")
    page.locator("#stop").click()
    finished(page)
    run(page, "print('kept', kept)")
    expect(screen(page)).to_contain_text("kept 7")


def test_sessions_are_made_chosen_and_closed(page: Page) -> None:
    run(page, "which = 'first'")
    page.locator("#new-session").click()
    expect(page.locator("#session input")).to_have_value(re.compile("Session 2"))
    run(page, "which = 'second'")
    page.locator("#session input").click()
    expect(page.get_by_role("option")).to_have_count(2)
    page.get_by_role("option", name="Session 1").click()
    run(page, "print(which)")
    expect(screen(page)).to_contain_text("first")
    page.locator("#close-session").click()
    expect(page.locator("#notice")).to_contain_text("is closed")
    run(page, "print(which)")
    expect(screen(page)).to_contain_text("second")


def test_history_runs_again_and_goes_along_as_a_notebook(page: Page, tmp_path: Path) -> None:
    run(page, "n = globals().get('n', 0) + 1\nprint('run number', n)")
    run(page, "plt.plot([1, 2]); plt.show()")
    run(page, "echo from bash", "bash")
    open_tab(page, "History")
    entries = page.locator("#history .ci-entry")
    expect(entries).to_have_count(3)
    with page.expect_download() as download:
        page.locator("#save-notebook").click()
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    assert target.suffix == ".ipynb"
    notebook = json.loads(target.read_text(encoding="utf-8"))
    assert [cell["source"].split("\n")[0] for cell in notebook["cells"]][3] == "%%bash"
    assert notebook["cells"][1]["outputs"][0]["text"] == "run number 1\n"
    assert any("image/png" in output.get("data", {}) for output in notebook["cells"][2]["outputs"])
    with page.expect_download() as whole:
        page.locator("#save-session").click()
    with zipfile.ZipFile(whole.value.path()) as archive:
        assert set(archive.namelist()) == {"session.ipynb", "plots/1.png"}
    entries.last.get_by_role("button", name="Run again").click()
    expect(screen(page)).to_contain_text("run number 2")
    expect(page.get_by_role("radio", name="Python", exact=True)).to_be_checked()


def test_what_is_not_there_or_not_whole_is_not_run_again(page: Page) -> None:
    run(page, "ran = globals().get('ran', 0) + 1\nprint('run number', ran)")
    run(page, f"echo {'x' * 20_000} | wc -c; echo cut", "bash")
    expect(screen(page)).to_contain_text("20001")
    page.get_by_role("radio", name="Python", exact=True).check()
    editor(page).fill("print('what stands in the editor')")
    open_tab(page, "History")
    entries = page.locator("#history .ci-entry")
    expect(entries).to_have_count(2)
    cut = "Only the first 20,000 of 20,023 characters of this code were kept."
    expect(entries.first).to_contain_text(cut)
    toast = page.locator(".toast-body")
    entries.first.get_by_role("button", name="Run again").click()
    expect(toast).to_contain_text(f"{cut} That is not run.")
    toast.get_by_test_id("toast-close").click()
    gone = entries.last.get_by_role("button", name="Run again")
    gone.evaluate("(button) => { button.dataset.name = 'forgotten'; }")
    gone.click()
    expect(toast).to_contain_text("no longer remembered")
    toast.get_by_test_id("toast-close").click()
    page.wait_for_timeout(500)
    page.locator("#history-refresh").click()
    expect(entries.last.locator("button[data-name=forgotten]")).to_have_count(0)
    expect(entries).to_have_count(2)
    entries.first.get_by_role("button", name="Edit").click()
    expect(toast).to_contain_text(f"{cut} The editor has no more of it.")
    expect(page.locator("#code .cm-content")).to_contain_text("echo xxx")
    assert "what stands in the editor" not in screen(page).inner_text()


def test_everything_fits_on_a_phone(opener: Opener) -> None:
    page = opener(viewport={"width": 390, "height": 780}, is_mobile=True, has_touch=True)
    run(page, "print('on a phone ' * 40)\nplt.plot([3, 1, 2]); plt.show()\ndf = pd.DataFrame(np.ones((3, 30)))\ndf")
    expect(shown(page).locator(".ci-picture button img")).to_be_visible()
    assert _overflow(page) == 0
    for name in ("Files", "History", "Connect", "Operator", "Run"):
        open_tab(page, name)
        page.wait_for_timeout(300)
        assert _overflow(page) == 0, name


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.scrollingElement.scrollWidth - document.documentElement.clientWidth"))


def test_dark_mode_is_dark(opener: Opener) -> None:
    page = opener(color_scheme="dark")
    run(page, "print('in the dark')")
    light = page.evaluate(
        """() => ['body', '.ci-terminal'].map((name) => {
            const rgb = getComputedStyle(document.querySelector(name)).backgroundColor.match(/[\\d.]+/g).map(Number);
            return Math.max(...rgb.slice(0, 3));
        })"""
    )
    assert max(light) < 90, light
    text = page.evaluate("getComputedStyle(document.querySelector('.ci-terminal')).color.match(/[\\d.]+/g).map(Number)")
    assert min(text[:3]) > 150, text


def test_the_page_says_that_the_connection_broke_and_that_it_is_back(opener: Opener) -> None:
    page = opener(errors_expected=True)
    page.context.set_offline(True)
    expect(page.locator("#connection")).to_contain_text("connection to the server is broken")
    page.context.set_offline(False)
    expect(page.locator("#connection")).to_contain_text("connection is back", timeout=WAIT)


def test_the_connect_tab_gives_the_blocks_for_this_address_and_the_self_test_passes(page: Page) -> None:
    open_tab(page, "Connect")
    address = page.url.rstrip("/")
    expect(page.locator("#yaml")).to_contain_text(f"{address}/gradio_api/mcp/sse")
    page.get_by_role("radio", name="Streamable HTTP").check()
    expect(page.locator("#yaml")).to_contain_text("streamable-http")
    expect(page.locator("#yaml").get_by_role("button", name="Copy")).to_be_visible()
    page.locator("#self-test").click()
    expect(page.locator("#tested tbody tr")).to_have_count(4)
    expect(page.locator("#tested td.ci-ok")).to_have_count(4)
