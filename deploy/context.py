"""What the commands share: arguments, environment, and the Hub once somebody needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from deploy.apply import verified_private
from deploy.bundle import PROJECT, Bundle, collect
from deploy.config import Target, address_of
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.probe import Access
from deploy.retries import Pace
from deploy.tokens import READ, Account, deploy_token, read_token


def say(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


def warn(line: str) -> None:
    """One line that the user should not miss."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


@dataclass
class Context:
    """What the commands share: arguments, environment, and the Hub once somebody needs it."""

    args: argparse.Namespace
    environ: Mapping[str, str]
    pace: Pace
    endpoint: str
    _checked: bool = field(default=False, init=False)

    @cached_property
    def wanted(self) -> Target:
        """What is wanted, as file and flags say it."""
        path = Path(self.args.config)
        flags = {"space": self.args.space, "hardware": self.args.hardware}
        return Target.load(path if path.exists() or self.args.config != "deploy.toml" else None, self.environ, **flags)

    @cached_property
    def hub(self) -> Hub:
        """The Hub, with the token that may write."""
        token = deploy_token(self.environ)
        return Hub(endpoint=self.endpoint, token=token, hardware=self.wanted.hardware, pace=self.pace)

    @cached_property
    def account(self) -> Account:
        """Whose token it is."""
        return self.hub.whoami()

    @cached_property
    def target(self) -> Target:
        """What is wanted, with the owner filled in."""
        return self.wanted if "/" in self.wanted.space else self.wanted.owned_by(self.account.name)

    @cached_property
    def bundle(self) -> Bundle:
        """The files of the tree at hand."""
        return collect(self.target, project=PROJECT)

    @cached_property
    def access(self) -> Access:
        """The read-only token for the Space's own address; without one the deploy token, in the stripped header."""
        key = self.environ.get("ACCESS_KEY", "").strip()
        if token := read_token(self.environ):
            stripped = getattr(self.args, "auth_header", "Authorization") == "X-HF-Authorization"
            return Access(token=token, stripped=stripped, access_key=key)
        return Access(token=deploy_token(self.environ), stripped=True, access_key=key)

    def address(self) -> str:
        """The Space's address, from the Hub."""
        return address_of(verified_private(self.hub, self.target.space).host, self.hub.endpoint, self.target.space)

    def check_read_token(self) -> None:
        """Warn where LibreChat's token could do more than it has to. Raises DeployError where the Hub refuses it."""
        if self._checked:
            return
        self._checked = True
        token = read_token(self.environ)
        if not token:
            warn(
                f"{READ} is not set: trying with the deploy token instead. Make a read-only token (best: fine-grained, "
                "read access to this Space alone) for LibreChat, and set it to try exactly that one."
            )
            return
        try:
            reader = Hub(endpoint=self.hub.endpoint, token=token, pace=self.pace).whoami()
        except DeployError as error:
            if error.code is not Exit.TOKEN:
                raise
            raise DeployError(
                f"Hugging Face does not accept {READ}: it is expired, revoked or mistyped. Make a new one that may "
                f"only read, set {READ} and LibreChat's .env to it, and run the same command again.",
                Exit.TOKEN,
            ) from None
        if reader.may_write is not False:
            warn(
                f"{READ} is a token that may write (role {reader.role}). LibreChat needs to read only: make a "
                "read-only one and use that in LibreChat's .env."
            )
