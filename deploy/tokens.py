"""The two tokens: where they come from, and what the Hub lets each of them do."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import get_token

from deploy.errors import DeployError, Exit

DEPLOY = "HF_TOKEN"
"""Name of the token that may write. It never leaves this machine but to the Hub itself."""

READ = "LIBRECHAT_HF_TOKEN"
"""Name of the read-only token, which LibreChat gets and the smoke test uses."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a token belongs to and what it may do; `may_write` is None where the Hub does not say."""

    name: str
    plan: str
    role: str
    may_write: bool | None
    organizations: tuple[str, ...]


def account(data: dict[str, Any]) -> Account:
    """An account from the answer to `whoami`."""
    token = (data.get("auth") or {}).get("accessToken") or {}
    role = str(token.get("role") or "unknown")
    may_write: bool | None = {"read": False, "write": True, "admin": True}.get(role)
    if role == "fineGrained":
        scopes = token.get("fineGrained") or {}
        granted = {p for scoped in scopes.get("scoped", ()) for p in scoped.get("permissions", ())}
        granted |= set(scopes.get("global", ()))
        may_write = any(permission.endswith("write") for permission in granted)
    return Account(
        name=str(data.get("name") or ""),
        plan="PRO" if data.get("isPro") else "free",
        role=role,
        may_write=may_write,
        organizations=tuple(str(o.get("name")) for o in data.get("orgs", ())),
    )


def deploy_token(environ: Mapping[str, str]) -> str:
    """The token that may write: HF_TOKEN, else the one of `hf auth login`, else asked for at a terminal."""
    token = environ.get(DEPLOY, "").strip() or get_token() or ""
    if not token and sys.stdin.isatty():
        token = getpass.getpass("Hugging Face token with write access (not shown): ").strip()
    if not token:
        raise DeployError(
            f"No token: set {DEPLOY} to a token with write access, or run `hf auth login`. "
            "It is never taken from the command line, where others could read it.",
            Exit.TOKEN,
        )
    return token


def read_token(environ: Mapping[str, str]) -> str:
    """The read-only token, empty where there is none."""
    return environ.get(READ, "").strip()


def may_deploy(account: Account, owner: str) -> None:
    """Raise DeployError where the account plainly cannot write to `owner`'s Spaces."""
    if account.may_write is False:
        raise DeployError(
            f"The token of {account.name} may only read (role {account.role}). Make one with write access in the "
            f"account's token settings and set {DEPLOY}; keep this one for LibreChat, as {READ}.",
            Exit.TOKEN,
        )
    if owner != account.name and owner not in account.organizations:
        raise DeployError(
            f"The token belongs to {account.name}, who is not in the organisation {owner}. Ask to be let in, use a "
            f"token of a member, or deploy to your own account with `--space {account.name}/name`.",
            Exit.TOKEN,
        )
