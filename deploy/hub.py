"""Talks to the Hub: one client with deadlines, retries where a retry can succeed, and a sentence for every failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    SpaceInfo,
    Volume,
    hf_raise_for_status,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from deploy.errors import DeployError, explain
from deploy.retries import Pace, persist
from deploy.tokens import Account, account
from deploy.trust import trusted

T = TypeVar("T")


class Hub:
    """The calls that deploying needs, on one Space each; every one raises DeployError and nothing else."""

    def __init__(self, *, endpoint: str, token: str, hardware: str = "", pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.endpoint = endpoint
        self._hardware = hardware
        self._api = HfApi(endpoint=endpoint, token=token)
        self._token = token

        def client() -> httpx2.Client:
            # huggingface_hub's own client waits for ever
            return httpx2.Client(
                verify=trusted(),
                event_hooks={"response": [_conflict_is_an_error]},
                follow_redirects=True,
                timeout=httpx2.Timeout(self.pace.request_timeout, connect=min(15.0, self.pace.request_timeout)),
            )

        set_client_factory(client)

    def whoami(self) -> Account:
        """The account of our token, and what the token may do."""
        data = self._call("asking who the token belongs to", "", self._api.whoami)
        return account(data)

    def info(self, space: str) -> SpaceInfo | None:
        """The Space as the Hub has it now, None where there is none that the token may see."""

        def ask() -> SpaceInfo | None:
            try:
                # without its own timeout, this one call waits for ever
                return self._api.space_info(space, timeout=self.pace.request_timeout)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 401:
                    raise _status_error(error) from None
                return None

        return self._call("looking at the Space", space, ask)

    def create(self, space: str) -> None:
        """Create the Space: private and empty. Does not trust an answer that says that it is there already."""

        def once() -> bool:
            self._api.create_repo(
                space,
                repo_type="space",
                visibility="private",
                space_sdk="gradio",
                space_hardware=self._hardware,  # type: ignore[arg-type]  # newer names than the enumeration's
            )
            return True

        # the answer may be lost and the Space there: look before creating again
        self._call("creating the private Space", space, once, found=lambda: self.info(space) is not None or None)

    def head(self, space: str) -> str:
        """The id of the newest commit, empty where the Space is gone."""
        info = self.info(space)
        return str(info.sha or "") if info else ""

    def make_private(self, space: str) -> None:
        """Set the visibility of a Space that exists."""
        self._call(
            "making the Space private",
            space,
            lambda: self._api.update_repo_settings(space, repo_type="space", visibility="private"),
        )

    def variables(self, space: str) -> dict[str, tuple[str, float]]:
        """The Space's variables, each with the time of their last change, in seconds since 1970 (0 where unknown)."""
        found = self._call("reading the variables", space, lambda: self._api.get_space_variables(space))
        return {k: (v.value, v.updated_at.timestamp() if v.updated_at else 0.0) for k, v in found.items()}

    def secrets(self, space: str) -> dict[str, float]:
        """Names of the Space's secrets and the time of their last change; values cannot be read."""
        found = self._call("reading the names of the secrets", space, lambda: self._api.get_space_secrets(space))
        return {key: secret.updated_at.timestamp() if secret.updated_at else 0.0 for key, secret in found.items()}

    def set_variable(self, space: str, key: str, value: str) -> None:
        """Set one variable."""
        self._call(f"setting the variable {key}", space, lambda: self._api.add_space_variable(space, key, value))

    def delete_variable(self, space: str, key: str) -> None:
        """Delete one variable; one that is gone already is fine."""
        self._delete_key(
            f"deleting the variable {key}", space, key, self._api.delete_space_variable, self._api.get_space_variables
        )

    def set_secret(self, space: str, key: str, value: str) -> None:
        """Set one secret."""
        self._call(f"setting the secret {key}", space, lambda: self._api.add_space_secret(space, key, value))

    def delete_secret(self, space: str, key: str) -> None:
        """Delete one secret; one that is gone already is fine."""
        self._delete_key(
            f"deleting the secret {key}", space, key, self._api.delete_space_secret, self._api.get_space_secrets
        )

    def set_hardware(self, space: str, hardware: str) -> None:
        """Ask for other hardware."""
        self._call(
            f"asking for {hardware}",
            space,
            lambda: self._api.request_space_hardware(space, hardware),  # type: ignore[arg-type]
        )

    def set_sleep_time(self, space: str, seconds: int) -> None:
        """Set the idle seconds before the Space sleeps; -1: never."""
        self._call("setting the sleep time", space, lambda: self._api.set_space_sleep_time(space, seconds))

    def set_volumes(self, space: str, volumes: list[Volume]) -> None:
        """Replace the list of mounted volumes."""
        self._call("attaching the storage volume", space, lambda: self._api.set_space_volumes(space, volumes))

    def runtime(self, space: str) -> dict[str, Any]:
        """The runtime as the Hub answers it: `stage`, `hardware`, `gcTimeout`, `volumes`, …"""
        runtime = self._call("asking how the Space is doing", space, lambda: self._api.get_space_runtime(space))
        return dict(runtime.raw)

    def tree(self, space: str, revision: str = "main") -> dict[str, str]:
        """Paths and git names of the files of a revision; folders are left out."""

        def ask() -> dict[str, str]:
            found = self._api.list_repo_tree(space, repo_type="space", recursive=True, revision=revision)
            return {entry.path: entry.blob_id for entry in found if isinstance(entry, RepoFile)}

        return self._call("listing the Space's files", space, ask)

    def commits(self, space: str) -> list[GitCommitInfo]:
        """The Space's commits, the newest first."""
        return self._call(
            "reading the Space's history", space, lambda: self._api.list_repo_commits(space, repo_type="space")
        )

    def commit(
        self,
        space: str,
        *,
        title: str,
        parent: str,
        add: dict[str, bytes] | None = None,
        copy: dict[str, str] | None = None,
        delete: list[str],
        wanted: dict[str, str],
    ) -> str:
        """One commit on top of `parent`; returns its id.

        `add` maps paths to contents, `copy` maps paths to the revision to take them from. Where the answer is lost, the
        tree tells whether the commit arrived: then it has all of `wanted` (path to git name) and nothing is sent twice.
        """

        def once() -> str:
            operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
                CommitOperationDelete(path_in_repo=path, is_folder=False) for path in sorted(delete)
            ]
            operations += [CommitOperationAdd(path, content) for path, content in sorted((add or {}).items())]
            for path, revision in sorted((copy or {}).items()):
                operations.append(CommitOperationCopy(path, path, src_revision=revision))
            done = self._api.create_commit(
                space, operations, commit_message=title, repo_type="space", parent_commit=parent
            )
            return str(done.oid)

        return self._call(
            "uploading the files",
            space,
            once,
            found=lambda: self.head(space) if self._arrived(space, wanted) else None,
        )

    def logs(self, space: str, *, build: bool, follow: bool = False) -> Iterator[str]:
        """Lines of the build log or of the run log: those at hand, or with `follow` until the Hub ends the stream."""
        try:
            for text in self._api.fetch_space_logs(space, build=build, follow=follow):
                yield text.rstrip("\n")
        except Exception as error:
            raise self._explained(error, "reading the log", space) from error

    def log_tail(self, space: str, *, build: bool, lines: int = 40) -> list[str]:
        """The last lines of a log, and none at all where it cannot be had: it only ever explains something else."""
        with suppress(DeployError):
            return [line for line in self.logs(space, build=build) if line.strip()][-lines:]
        return []

    def restart(self, space: str, *, rebuild: bool = False) -> None:
        """Restart a Space, or wake a paused one; `rebuild` starts from nothing."""
        self._call("restarting the Space", space, lambda: self._api.restart_space(space, factory_reboot=rebuild))

    def pause(self, space: str) -> None:
        """Stop the Space until somebody restarts it."""
        self._call("pausing the Space", space, lambda: self._api.pause_space(space))

    def destroy(self, space: str) -> None:
        """Delete the Space and its history; one that is gone already is fine."""
        self._call(
            "deleting the Space", space, lambda: self._api.delete_repo(space, repo_type="space", missing_ok=True)
        )

    def price(self, hardware: str) -> str:
        """What the Hub asks for this hardware, in words; empty where it does not say."""
        with suppress(Exception):
            for offer in self._api.list_spaces_hardware():
                if offer.name == hardware:
                    return f"{offer.unit_cost_usd:g} USD a {offer.unit_label}"
        return ""

    def _arrived(self, space: str, wanted: dict[str, str]) -> bool:
        with suppress(DeployError):
            tree = self.tree(space)
            return all(tree.get(path) == oid for path, oid in wanted.items()) and set(tree) <= {
                *wanted,
                ".gitattributes",
            }
        return False

    def _delete_key(
        self,
        doing: str,
        space: str,
        key: str,
        delete: Callable[[str, str], object],
        read: Callable[[str], Mapping[str, object]],
    ) -> None:
        def once() -> None:
            try:
                delete(space, key)
            except HfHubHTTPError as error:
                # gone already, or a 404 that means something else: look
                if error.response.status_code != 404 or key in read(space):
                    raise

        self._call(doing, space, once)

    def _call(self, doing: str, space: str, act: Callable[[], T], *, found: Callable[[], T | None] = lambda: None) -> T:
        """Run an act as `persist` does; `doing` says in an error what it was."""
        try:
            return persist(act, self.pace, found=found)
        except Exception as error:
            raise self._explained(error, doing, space) from error

    def _explained(self, error: Exception, doing: str, space: str) -> DeployError:
        told = explain(error, doing=doing, space=space, hardware=self._hardware)
        return DeployError(str(told).replace(self._token, "***"), told.code)


def _conflict_is_an_error(response: httpx2.Response) -> None:
    """Raise a 409 as it comes in: `create_repo` would repeat one kind of it for ever, and without a pause."""
    if response.status_code == 409:
        response.read()
        hf_raise_for_status(response)


def _status_error(error: RepositoryNotFoundError) -> HfHubHTTPError:
    """The same as a plain status error: huggingface_hub reads 401 on a Space as a missing one."""
    return HfHubHTTPError(str(error), response=error.response, server_message=error.server_message)
