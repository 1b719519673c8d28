"""What README.md says is so."""

import re
import subprocess
from pathlib import Path

from tests.readme import README, with_settings

ROOT = Path(__file__).parent.parent


def test_the_table_of_settings_is_what_the_code_reads():
    text = README.read_text()
    assert with_settings(text) == text, "run `make readme`"


def test_every_make_target_that_is_named_exists():
    named = set(re.findall(r"`make ([a-z-]+)`|^    make ([a-z-]+) ", README.read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {a or b for a, b in named} <= targets


def test_bare_make_lists_every_target():
    listed = subprocess.run(["make"], check=True, cwd=ROOT, capture_output=True, text=True, timeout=20).stdout
    for target in re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE):
        assert f"make {target}" in listed


def test_every_file_that_is_named_exists():
    for name in re.findall(r"`?((?:docs|tests|\.ci)/[\w.-]+|SECURITY\.md|LICENSE)`?", README.read_text()):
        assert (ROOT / name).exists(), name
