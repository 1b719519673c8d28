"""What travels to the Space, and what never does."""

from __future__ import annotations

import ast
import os
import shutil

import pytest
import yaml

from deploy import frontmatter
from deploy.bundle import LIMIT, collect, git_oid
from deploy.config import Target
from deploy.entry import entry
from deploy.errors import DeployError
from deploy.hardware import about
from tests.hub.space import oid_of

BAIT = {
    ".env": "HF_TOKEN=hf_baitbaitbait",
    "space/.env": "HF_TOKEN=hf_baitbaitbait",
    "space/id_rsa": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "space/server.pem": "-----BEGIN PRIVATE KEY-----",
    "space/notes.txt": "password",
    "space/token": "hf_baitbaitbait",
    "executor/.cache/x.py": "secret = 1",
    "executor/__pycache__/x.cpython-311.pyc": "bytecode",
    "executor/core.12345": "memory",
    "executor/local/state.sqlite": "rows",
    "monitoring/.git/config": "[remote]",
    "tests/test_x.py": "secret = 1",
    "deploy/x.py": "secret = 1",
    "deploy.toml": "space = 'x/y'",
    "docs/x.md": "text",
    ".github/workflows/x.yml": "on: push",
}


def test_env_files_keys_caches_and_tests_never_travel(tree) -> None:
    clean = collect(Target(), project=tree)
    for path, text in BAIT.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    (tree / "space" / "outside.py").symlink_to("/etc/passwd")
    baited = collect(Target(), project=tree)
    assert baited.files.keys() == clean.files.keys()
    assert not any(path in baited.files for path in (*BAIT, "space/outside.py"))


def test_the_same_tree_gives_the_same_bytes_whatever_order_times_and_folder(tree, tmp_path) -> None:
    one = collect(Target(), project=tree)
    other = shutil.copytree(tree, tmp_path / "elsewhere")
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    assert collect(Target(), project=other).files == one.files


def test_any_change_gives_another_build_id(tree) -> None:
    before = collect(Target(), project=tree).build_id
    assert collect(Target(title="Another"), project=tree).build_id != before
    (tree / "executor" / "errors.py").write_text('"""Other."""\n')
    assert collect(Target(), project=tree).build_id != before


def test_the_bundle_is_small_text_with_all_that_a_space_needs(still_tree) -> None:
    bundle = collect(Target(extra_apt=("graphviz",)), project=still_tree)
    assert bundle.size < LIMIT
    assert {"app.py", "README.md", "requirements.txt", "packages.txt", "BUILD", "LICENSE"} <= bundle.files.keys()
    for package in ("executor", "space", "monitoring"):
        assert f"{package}/__init__.py" in bundle.files
    for path, content in bundle.files.items():
        assert "\0" not in content.decode(), path
    assert bundle.files["packages.txt"] == b"graphviz\n"


def test_every_file_that_the_packages_read_is_in_the_bundle(still_tree) -> None:
    kept = {path.split("/")[0] for path in collect(Target(), project=still_tree).files}
    assert kept >= {"executor", "space", "monitoring"}
    left = {
        path.relative_to(still_tree).as_posix()
        for package in ("executor", "space", "monitoring")
        for path in (still_tree / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - collect(Target(), project=still_tree).files.keys()
    assert left == set(), "a file of a package has a suffix that bundle.SUFFIXES does not know"


def test_a_binary_file_stops_the_bundle(tree) -> None:
    (tree / "space" / "data.json").write_bytes(b"{\0}")
    with pytest.raises(DeployError, match=r"space/data.json is not text"):
        collect(Target(), project=tree)


def test_too_much_stops_the_bundle(tree) -> None:
    (tree / "space" / "data.json").write_text("1" * LIMIT)
    with pytest.raises(DeployError, match="something large"):
        collect(Target(), project=tree)


def test_files_are_named_as_git_names_them() -> None:
    assert git_oid(b"hello\n") == oid_of(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize("hardware", ["cpu-basic", "zero-a10g", "t4-small"])
def test_the_front_matter_says_what_the_hub_knows_and_nothing_else(still_tree, hardware) -> None:
    text = collect(Target(hardware=hardware), project=still_tree).files["README.md"].decode()
    card = yaml.safe_load(text.split("---")[1])
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == "6.31.0"
    assert card["app_file"] == "app.py"
    assert card["python_version"] == {"zero-a10g": "3.12.12"}.get(hardware, "3.11")
    assert not {"private", "hardware", "secrets"} & card.keys(), "the Hub has no such keys"
    assert len(card["short_description"]) <= 60
    assert about(hardware) in text, "price, sleep and quota of this hardware are told"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"short_description": "x" * 61}, "longer than 60"),
        ({"colorFrom": "mauve"}, "colorFrom must be one of"),
        ({"private": True}, "knows no key 'private'"),
        ({"sdk_version": ""}, "sdk_version must be text"),
    ],
)
def test_a_front_matter_that_the_hub_would_refuse_is_refused_here(wrong, sentence) -> None:
    good = {
        "title": "t", "sdk": "gradio", "sdk_version": "6.31.0", "python_version": "3.11", "app_file": "app.py",
        "colorFrom": "red", "colorTo": "blue",
    }  # fmt: skip
    frontmatter.check(good)
    with pytest.raises(DeployError, match=sentence):
        frontmatter.check({**good, **wrong})


@pytest.mark.parametrize("zero_gpu", [False, True])
def test_the_entry_brings_up_the_very_same_app_and_calls_nothing_else(zero_gpu) -> None:
    code = ast.parse(entry(zero_gpu=zero_gpu))
    called = {ast.unparse(node.func) for node in ast.walk(code) if isinstance(node, ast.Call)}
    assert called == {"main"} | ({"spaces.GPU"} if zero_gpu else set()), "the marked function is never called"
    marked = [node for node in ast.walk(code) if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert len(marked) == (1 if zero_gpu else 0)
    assert any(isinstance(node, ast.ImportFrom) and node.module == "space.app" for node in ast.walk(code))
