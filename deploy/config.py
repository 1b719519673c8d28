"""What the user wants: `deploy.toml`, with flags on top, and the values of secrets from the environment."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from deploy.errors import DeployError, Exit
from executor.errors import SettingsError
from executor.settings import SECRET, Settings
from space.build import NOTE
from space.state import VOLUME

DEFAULT_NAME = "librechat-code-interpreter"
PYTHON = {"cpu": "3.11", "zero": "3.12.12"}
"""`python_version` by hardware: 3.11 is what the suite runs on, 3.12.12 the one that ZeroGPU has besides 3.10.13."""

_SPACE = re.compile(r"(?:(?P<owner>[A-Za-z0-9][\w.-]*)/)?(?P<name>[A-Za-z0-9][\w.-]*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
_SECRET_SETTINGS = {name.upper() for name, f in Settings.__dataclass_fields__.items() if f.metadata[SECRET]}
TOKENS = {"HF_TOKEN", "LIBRECHAT_HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"}
"""Environment variables that may hold a token of Hugging Face."""
_KEYS = {
    "space", "organization", "hardware", "sleep_time", "variables", "secrets", "extra_pip", "extra_apt", "volume",
    "title",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A storage bucket (`source`, as owner/name) mounted at `mount_path`."""

    source: str
    mount_path: str = str(VOLUME)
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Everything about the Space that we decide.

    `sleep_time` is in seconds without a visit, -1 for never, None to leave it alone; `secrets` maps names to values and
    is never printed.
    """

    space: str = DEFAULT_NAME
    title: str = "Code interpreter for LibreChat"
    hardware: str = "cpu-basic"
    sleep_time: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_pip: tuple[str, ...] = ()
    extra_apt: tuple[str, ...] = ()
    volume: Storage | None = None

    def __post_init__(self) -> None:
        if not _SPACE.fullmatch(self.space):
            raise _refused(f"space = {self.space!r}: give `name` or `owner/name`")
        try:
            validate_repo_id(self.space)
        except HFValidationError as error:
            raise _refused(f"space = {self.space!r}: the Hub takes no such name. {error}") from None
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.hardware):
            raise _refused(f"hardware = {self.hardware!r}: give a name as the Hub lists it, such as cpu-basic")
        if self.sleep_time is not None and self.sleep_time != -1 and self.sleep_time < 60:
            raise _refused(f"sleep_time = {self.sleep_time}: give seconds from 60 on, or -1 for never")
        if self.sleep_time is not None and self.hardware in ("cpu-basic", "zero-a10g"):
            raise _refused(f"sleep_time cannot be chosen on {self.hardware}: the platform fixes it; leave it out")
        for name in (*self.variables, *self.secrets):
            if not _VARIABLE.fullmatch(name) or name == NOTE:
                raise _refused(f"{name!r} cannot be the name of a variable or secret")
        for name, value in self.variables.items():
            if name in _SECRET_SETTINGS | TOKENS or _TOKEN.search(value):
                raise _refused(f"{name} is a secret: move it from [variables] to `secrets`")
        for name, value in self.secrets.items():
            if name in TOKENS or _TOKEN.search(value):
                raise _refused(f"{name}: a Hugging Face token has no business on the Space, where guests run code")
        if clash := sorted(set(self.variables) & set(self.secrets)):
            raise _refused(f"{clash[0]} is both a variable and a secret; keep one")
        for package in self.extra_apt:
            if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", package):
                raise _refused(f"extra_apt: {package!r} is not the name of a Debian package")
        try:
            if self.settings.tools:
                # here alone: it brings the executor along, and deploying works where that does not
                from space.tools import tool_table  # noqa: PLC0415

                tool_table(self.settings)
        except SettingsError as error:
            raise _refused(str(error)) from None

        if self.volume is not None:
            self._check_volume(self.volume)

    def _check_volume(self, volume: Storage) -> None:
        """The app keeps its sessions there, or the volume is of no use to it."""
        # elsewhere than where the app looks by itself, STATE_DIR has to say so
        folder = self.settings.state_dir or str(VOLUME)
        if not PurePosixPath(folder).is_relative_to(volume.mount_path):
            raise _refused(
                f"[volume] mount_path = {volume.mount_path!r}: the app keeps its sessions in {folder}. Mount it "
                "there, or set STATE_DIR under [variables] to a folder in it"
            )
        if volume.read_only:
            raise _refused("[volume] read_only = true: the app keeps its sessions there; leave it out")

    @property
    def settings(self) -> Settings:
        """The app's settings as variables and secrets give them."""
        return Settings.from_env({**self.variables, **self.secrets})

    @property
    def unknown(self) -> list[str]:
        """Names of variables and secrets that are no setting of the app: misspelt, or meant for people's code."""
        known = {name.upper() for name in Settings.__dataclass_fields__}
        return sorted({*self.variables, *self.secrets} - known)

    @property
    def zero_gpu(self) -> bool:
        """Whether the Space runs on ZeroGPU, which makes demands on the entry and on Python."""
        return self.hardware.startswith("zero-")

    @property
    def python_version(self) -> str:
        """The Python that the front matter asks for."""
        return PYTHON["zero" if self.zero_gpu else "cpu"]

    def owned_by(self, owner: str) -> Target:
        """The same with `owner` in front of a bare name."""
        return self if "/" in self.space else replace(self, space=f"{owner}/{self.space}")

    @classmethod
    def load(cls, path: Path | None, environ: Mapping[str, str], **flags: Any) -> Self:
        """The target from `deploy.toml` at `path` (None: no file), flags that are not None on top.

        `secrets` in the file is a list of names; their values come from `environ`.
        """
        data: dict[str, Any] = {}
        if path is not None:
            try:
                data = tomllib.loads(path.read_text())
            except OSError as error:
                raise _refused(f"{path} cannot be read: {error.strerror}") from None
            except ValueError as error:
                raise _refused(f"{path} is not TOML: {error}") from None
        if unknown := sorted(set(data) - _KEYS):
            raise _refused(f"{path} has a key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
        data.update({key: value for key, value in flags.items() if value not in (None, ())})
        names = data.pop("secrets", [])
        if not _strings(names):
            raise _refused("secrets: give a list of names; the values are taken from the environment")
        for key in ("extra_pip", "extra_apt"):
            # a string is a sequence, too: its letters would become packages
            if not _strings(data.get(key, [])):
                raise _refused(f'{key} = {data[key]!r}: give a list of strings, as in {key} = ["name"]')
        if missing := [name for name in names if not environ.get(name)]:
            raise _refused(f"the secret {missing[0]} is not in the environment: set it and run again")
        owner = data.pop("organization", None)
        space = data.get("space", DEFAULT_NAME)
        if owner and isinstance(space, str) and "/" not in space:
            data["space"] = f"{owner}/{space}"
        volume = data.pop("volume", None)
        try:
            return cls(
                **{
                    **data,
                    "secrets": {name: environ[name] for name in names},
                    "variables": {k: _text(k, v) for k, v in data.get("variables", {}).items()},
                    "extra_pip": tuple(data.get("extra_pip", ())),
                    "extra_apt": tuple(data.get("extra_apt", ())),
                    "volume": Storage(**volume) if volume else None,
                }
            )
        except (TypeError, AttributeError) as error:
            raise _refused(f"deploy.toml: {error}") from None


def address_of(host: str | None, endpoint: str, space: str) -> str:
    """The Space's address as the Hub gave it, without a slash at the end.

    Plain http is accepted on loopback only, and only where the Hub itself is there: a token goes to this address.
    """
    if not host:
        raise DeployError(f"The Hub gave no address for {space} yet; run `status` in a minute.", Exit.HUB)
    host = host if "://" in host else f"https://{host}"
    if urlsplit(host).scheme != "https" and not (is_loopback(host) and is_loopback(endpoint)):
        raise DeployError(
            f"The Hub gave the address {host} for {space}, which is not https: no token is sent there. "
            "Check HF_ENDPOINT and any proxy.",
            Exit.HUB,
        )
    return host.rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether an address names this machine."""
    return urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _text(name: str, value: object) -> str:
    if isinstance(value, list) and _strings(value):
        return ",".join(value)
    if not isinstance(value, (str, bool, int, float)):
        raise _refused(f"{name} = {value!r}: give a string, a number, true or false, or a list of strings")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refused(what: str) -> DeployError:
    return DeployError(f"{what}{'' if what.endswith('.') else '.'}", Exit.USAGE)
