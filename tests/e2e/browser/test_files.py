"""Files in and out of a session, by hand, in a real browser."""

from __future__ import annotations

import random
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import Opener
from tests.e2e.browser.driving import open_tab, run, screen, shown


def test_a_csv_is_uploaded_used_and_its_result_downloaded(page: Page, tmp_path: Path) -> None:
    source = tmp_path / "Größen und Maße.csv"
    source.write_text("name,length\na,3\nb,4\n", encoding="utf-8")
    open_tab(page, "Files")
    page.locator("#drop input[type=file]").set_input_files(source)
    expect(page.locator("#files-status")).to_contain_text("is there (20 bytes)")
    name = page.locator("#files tbody a").inner_text()
    assert "Größen" in name
    open_tab(page, "Run")
    run(page, f"df = pd.read_csv({name!r})\nprint('sum', df.length.sum())\ndf.to_csv('out.csv', index=False)")
    expect(screen(page)).to_contain_text("sum 7")
    with page.expect_download() as download:
        shown(page).get_by_role("link", name="out.csv").click()
    assert Path(download.value.path()).read_bytes() == b"name,length\na,3\nb,4\n"


def test_bytes_come_back_as_they_went_in_and_a_zip_has_them_all(page: Page, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3_000_000)
    (tmp_path / "random.bin").write_bytes(data)
    (tmp_path / "empty.txt").write_bytes(b"")
    open_tab(page, "Files")
    page.locator("#drop input[type=file]").set_input_files([tmp_path / "random.bin", tmp_path / "empty.txt"])
    expect(page.locator("#files tbody tr")).to_have_count(2)
    with page.expect_download() as download:
        page.locator("#files").get_by_role("link", name="random.bin").click()
    assert Path(download.value.path()).read_bytes() == data
    with page.expect_download() as whole:
        page.get_by_role("link", name="All as a zip").click()
    assert Path(whole.value.path()).read_bytes()[:2] == b"PK"


def test_files_are_renamed_and_deleted(page: Page) -> None:
    run(page, "open('a & <b>.txt', 'w').write('1')\nopen('other.txt', 'w').write('2')")
    open_tab(page, "Files")
    row = page.locator("#files tbody tr", has_text="a & <b>.txt")
    row.get_by_text("Rename").click()
    row.locator("input").fill("plain.txt")
    row.get_by_role("button", name="OK").click()
    expect(page.locator("#files-status")).to_contain_text("is now plain.txt")
    other = page.locator("#files tbody tr", has_text="other.txt")
    other.get_by_role("button", name="Delete").click()
    other.get_by_role("button", name="Really?").click()
    expect(page.locator("#files-status")).to_contain_text("other.txt is deleted")
    expect(page.locator("#files tbody tr")).to_have_count(1)
    open_tab(page, "Run")
    run(page, "import glob\nprint(glob.glob('*'))")
    expect(screen(page)).to_contain_text("['plain.txt']")


def test_a_name_that_leaves_the_folder_is_refused_with_a_sentence(opener: Opener) -> None:
    page = opener()
    run(page, "open('a.txt', 'w').write('1')")
    open_tab(page, "Files")
    for name in ("../../evil.txt", "/etc/evil.txt"):
        field = page.locator("#files tbody input")
        if not field.is_visible():
            page.locator("#files").get_by_text("Rename").click()
        field.fill(name)
        page.locator("#files").get_by_role("button", name="OK").click()
        expect(page.locator("#files-status .ci-bad")).to_be_visible()
        expect(page.locator("#files tbody a").first).to_have_text("a.txt")
        page.locator("#files-refresh").click()
        expect(page.locator("#files-status .ci-bad")).to_be_hidden()
