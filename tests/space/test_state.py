"""Where sessions are kept when nobody has said so."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from executor.errors import SettingsError
from executor.settings import Settings, documented
from space import state
from space.state import how_long, with_store


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a Space's storage would be mounted; nothing is there yet."""
    monkeypatch.setattr(state, "VOLUME", tmp_path / "data")
    return tmp_path / "data"


def test_at_home_they_are_kept_with_the_users_other_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = with_store(Settings())
    assert found.state_dir == str(tmp_path / "state" / "code-interpreter")
    assert Path(found.state_dir).stat().st_mode & 0o777 == 0o700, "no other user may look"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")  # to be ignored, says the XDG Base Directory Specification
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert with_store(Settings()).state_dir == str(tmp_path / "home/.local/state/code-interpreter")
    assert how_long(found) == "being idle and restarts"


def test_on_a_space_they_are_kept_on_its_volume_and_nowhere_else(volume: Path) -> None:
    space = Settings(space_id="ada/code")
    assert with_store(space).state_dir == "", "without a volume nothing lasts there"
    assert "not a restart" in how_long(with_store(space))
    volume.mkdir()
    assert with_store(space).state_dir == str(volume / "code-interpreter")


def test_the_help_of_the_setting_names_these_folders() -> None:
    (meaning,) = [meaning for name, _, meaning in documented() if name == "STATE_DIR"]
    assert f"`~/.local/state/{state.NAME}`" in meaning
    assert f"`{state.VOLUME / state.NAME}`" in meaning


def test_what_the_operator_says_holds_or_stops_the_start(tmp_path: Path, volume: Path) -> None:
    volume.mkdir()
    mine = Settings(space_id="ada/code", state_dir=str(tmp_path / "mine"))
    assert with_store(mine) == mine and (tmp_path / "mine").is_dir()
    with pytest.raises(SettingsError, match="STATE_DIR=/dev/null/x"):
        with_store(Settings(state_dir="/dev/null/x"))
    off = Settings(snapshots=False, state_dir="/dev/null/x")
    assert with_store(off) == off
    assert how_long(off).startswith("nothing")


def test_a_user_whom_nobody_knows_has_no_home_and_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container has it that runs under any number for a user."""
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert with_store(Settings()).state_dir == ""
