"""deploy.toml, flags, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.bundle import PROJECT
from deploy.config import Storage, Target, address_of
from deploy.errors import DeployError, Exit


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> Target:
    path = tmp_path / "deploy.toml"
    path.write_text(text)
    return Target.load(path, environ or {}, **flags)


def test_the_example_file_is_read_and_says_every_key(tmp_path) -> None:
    text = (PROJECT / "deploy.example.toml").read_text()
    assert load(tmp_path, text) == Target(), "commented out, so that it changes nothing by itself"
    shown = "\n".join(line.removeprefix("# ") if "=" in line or "[" in line else "" for line in text.splitlines())
    target = load(tmp_path, shown, {"ACCESS_KEY": "k"})
    assert target.secrets == {"ACCESS_KEY": "k"}
    assert target.volume is not None
    assert target.variables
    assert target.unknown == []
    assert target.extra_pip
    assert target.extra_apt


def test_flags_win_over_the_file_and_the_organisation_goes_before_a_bare_name(tmp_path) -> None:
    target = load(tmp_path, 'space = "code"\norganization = "team"\nhardware = "cpu-upgrade"', hardware="t4-small")
    assert (target.space, target.hardware) == ("team/code", "t4-small")
    assert load(tmp_path, 'space = "a/b"', space="c/d").space == "c/d"
    assert Target().owned_by("ada").space == "ada/librechat-code-interpreter"


def test_values_of_variables_may_be_numbers_and_booleans(tmp_path) -> None:
    target = load(tmp_path, "[variables]\nMAX_SESSIONS = 4\nSINGLE_USER = true\n")
    assert target.variables == {"MAX_SESSIONS": "4", "SINGLE_USER": "true"}


def test_a_list_of_strings_is_what_the_app_reads_and_misspelt_settings_are_known(tmp_path) -> None:
    text = '[variables]\nTOOLS = ["execute_python_code", "get_system_info"]\nSESSION_TTL = 7200\n'
    target = load(tmp_path, text)
    assert target.variables["TOOLS"] == "execute_python_code,get_system_info"
    assert target.settings.tools == ("execute_python_code", "get_system_info")
    assert target.unknown == ["SESSION_TTL"]


def test_a_volume_is_read(tmp_path) -> None:
    target = load(tmp_path, '[volume]\nsource = "ada/bucket"\n')
    assert target.volume == Storage(source="ada/bucket", mount_path="/data")
    elsewhere = '[variables]\nSTATE_DIR = "/kept/here"\n[volume]\nsource = "ada/bucket"\nmount_path = "/kept"\n'
    assert load(tmp_path, elsewhere).volume == Storage(source="ada/bucket", mount_path="/kept")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("spaze = 'x'", "has a key 'spaze'; known are"),
        ("space = 'a/b/c'", "give `name` or `owner/name`"),
        ("hardware = 'CPU Basic'", "give a name as the Hub lists it"),
        ("sleep_time = 3600", "the platform fixes it"),
        ("hardware = 't4-small'\nsleep_time = 5", "seconds from 60 on"),
        ("secrets = ['ACCESS_KEY']", "the secret ACCESS_KEY is not in the environment"),
        ("[variables]\nACCESS_KEY = 'x'", "ACCESS_KEY is a secret"),
        ("[variables]\nNOTE = 'hf_abcdefghijkl'", "NOTE is a secret"),
        ("[variables]\nMAX_SESSIONS = 'many'", "MAX_SESSIONS='many': give a whole number"),
        ("[variables]\nDEPLOY_STATE = '1'", "cannot be the name"),
        ("extra_apt = ['a; rm -rf /']", "is not the name of a Debian package"),
        ("volume = 'x'", "deploy.toml"),
        ("[volume]\nsource = 'a/b'\nmount_path = '/kept'", r"keeps its sessions in /data.*set STATE_DIR"),
        ("[volume]\nsource = 'a/b'\nread_only = true", r"read_only.*leave it out"),
        ("extra_pip = 'polars'", r"extra_pip = 'polars': give a list of strings"),
        ("extra_apt = 'graphviz'", "extra_apt = 'graphviz': give a list of strings"),
        ("extra_pip = [1]", "give a list of strings"),
        ("[variables]\nTOOLS = ['execute_pyton_code']", "no tool is called 'execute_pyton_code'"),
        ("[variables]\nALLOWED_HOSTS = [1, 2]", "or a list of strings"),
        ("[variables]\nTOOLS = {a = 1}", "or a list of strings"),
        ("space = 'ada/a--b'", "the Hub takes no such name"),
        ("space = 'a..b'", "the Hub takes no such name"),
        ("space = 'name-'", "the Hub takes no such name"),
        ("space = 'name.git'", "the Hub takes no such name"),
        (f"space = '{'a' * 97}'", "the Hub takes no such name"),
        ("= 3", "is not TOML"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(tmp_path, text, sentence) -> None:
    with pytest.raises(DeployError, match=sentence) as stop:
        load(tmp_path, text)
    assert stop.value.code == Exit.USAGE


def test_a_token_never_becomes_a_secret_of_the_space(tmp_path) -> None:
    for environ in ({"HF_TOKEN": "hf_abcdefghijkl"}, {"MY_KEY": "hf_abcdefghijkl"}):
        with pytest.raises(DeployError, match="no business on the Space"):
            load(tmp_path, f"secrets = {list(environ)}", environ)


def test_values_of_secrets_are_not_in_the_targets_own_words() -> None:
    assert "verysecret" not in repr(Target(secrets={"ACCESS_KEY": "verysecret"}))


def test_a_token_goes_to_https_addresses_only_except_on_loopback() -> None:
    local = "http://127.0.0.1:9"
    assert address_of("a-b.hf.space", "https://huggingface.co", "a/b") == "https://a-b.hf.space"
    assert address_of("http://127.0.0.1:8/", local, "a/b") == "http://127.0.0.1:8"
    for host, endpoint in (("http://a-b.hf.space", local), ("http://127.0.0.1:8", "https://huggingface.co")):
        with pytest.raises(DeployError, match="no token is sent"):
            address_of(host, endpoint, "a/b")
    with pytest.raises(DeployError, match="gave no address"):
        address_of(None, local, "a/b")
