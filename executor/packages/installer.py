"""Installer: from a caller's list of names to packages in a session, fetched on the server's side, copied as a whole.

A session's packages of one language are one set: every further request is resolved together with the former ones, and
the folder in the session is exchanged as a whole, so it is never half of something.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from executor.backend import Backend, SessionRef
from executor.errors import BackendFailed, Busy, InvalidRequest
from executor.events import Event, Fault, PackagesInstalled
from executor.packages.client import Client, FetchFailed, Job, Progress
from executor.packages.npm import Npm
from executor.packages.pip import Pip
from executor.packages.report import Ecosystem, Package, PackageReport, Refusal
from executor.packages.requests import EXAMPLES, Lists, Unusable, Wanted, parse
from executor.packages.shelf import Shelf
from executor.packages.store import Store, Tree
from executor.parcel import ParcelError, measure, pack
from executor.settings import Settings

T = TypeVar("T")

AT_ONCE = 2
"""Fetches at the same time, over all sessions."""


@dataclass(slots=True)
class _Outcome:
    tree: Tree | None
    wanted: dict[str, Wanted]
    refused: list[Refusal]


class Installer:
    """Installs packages into sessions of a backend. Not thread-safe: all calls come from one event loop."""

    def __init__(self, settings: Settings, backend: Backend, publish: Callable[[Event], None]) -> None:
        self._settings = settings
        self._backend = backend
        self._publish = publish
        self._lists = Lists(settings.package_allow, settings.package_deny)
        clients: tuple[Client, ...] = (Pip(), Npm())
        self._clients = {client.language: client for client in clients}
        folder = Path(settings.work_dir).expanduser().absolute() / "packages" if settings.work_dir else None
        self._store = Store(folder, max_bytes=settings.package_cache_mb * 1_000_000)
        self._storing = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()
        self._work: set[asyncio.Task[PackageReport]] = set()
        self._closed = False

    async def aclose(self) -> None:
        """End what is under way, and remove what is only ours."""
        self._closed = True
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await asyncio.to_thread(self._store.close)

    async def install(
        self,
        ref: SessionRef,
        requests: Sequence[str],
        language: Ecosystem,
        *,
        shelves: dict[Ecosystem, Shelf],
        owner: str,
        progress: Progress = lambda _: None,
    ) -> PackageReport:
        """Install `requests`, which `check` has seen, into a session; `progress` hears sentences meanwhile. Cancelling
        ends it without a trace. `shelves` say what the session has installed so far, and then, what it has now.

        Raises Busy where the session installs something already, and BackendFailed or FileRefused where it cannot take
        the packages.
        """
        if ref.id in self._under_way:
            raise Busy("Packages are being installed in this session already. Wait until that has ended.")
        self._under_way.add(ref.id)
        began = time.monotonic()
        report = PackageReport(session_id=ref.id, language=language)
        said: set[str] = set()

        def once(sentence: str) -> None:
            if sentence not in said:
                said.add(sentence)
                progress(sentence)

        work = asyncio.create_task(self._install(ref, requests, language, shelves, once), name="install-packages")
        self._work.add(work)
        try:
            report = await work
            return dataclasses.replace(report, seconds=time.monotonic() - began)
        except asyncio.CancelledError:
            if self._closed:
                raise BackendFailed("The executor is shutting down; nothing was installed.") from None
            raise
        finally:
            self._work.discard(work)
            self._under_way.discard(ref.id)
            seconds = time.monotonic() - began
            self._publish(
                PackagesInstalled(
                    session_id=ref.id,
                    owner=owner,
                    language=language,
                    installed=len(report.installed),
                    refused=len(report.refused),
                    size=report.size,
                    seconds=seconds,
                )
            )

    def check(self, requests: Sequence[str], language: str) -> Ecosystem:
        """The language, where packages may be installed and the list can be meant. Raises InvalidRequest."""
        if not self._settings.packages:
            raise InvalidRequest(
                "Installing packages is switched off here (PACKAGES=0). get_system_info lists what is there already."
            )
        ecosystem = next((known for known in self._clients if known == language), None)
        if ecosystem is None:
            raise InvalidRequest(f"Packages can be installed for python and javascript, not for {language!r:.40}.")
        if isinstance(requests, str) or not all(isinstance(request, str) for request in requests):
            raise InvalidRequest(f"packages must be a list of texts, such as [{EXAMPLES[ecosystem]}].")
        if not requests:
            raise InvalidRequest(f"The list of packages is empty. Name at least one, such as {EXAMPLES[ecosystem]}.")
        most = self._settings.package_max_count
        if len(requests) > most:
            raise InvalidRequest(f"{len(requests)} packages were asked for; at most {most} may be named in a session.")
        return ecosystem

    async def _install(
        self,
        ref: SessionRef,
        requests: Sequence[str],
        language: Ecosystem,
        shelves: dict[Ecosystem, Shelf],
        progress: Progress,
    ) -> PackageReport:
        # the first look at what is installed reads many small files
        wanted, present, refused = await asyncio.to_thread(self._sort, requests, language)
        report = PackageReport(session_id=ref.id, language=language, present=tuple(present), refused=tuple(refused))
        if not wanted:
            return report
        shelf = shelves.get(language) or Shelf()
        outcome = await self._fetch(shelf.wanted, wanted, language, progress)
        refused += outcome.refused
        report = dataclasses.replace(report, refused=tuple(refused))
        if (tree := outcome.tree) is None:
            return report
        try:
            progress(f"Copying {tree.size / 1e6:.1f} MB into the session.")
            await self._backend.install(ref, language, _pieces(tree.folder))
        except ParcelError as error:
            self._publish(Fault(where="packages", detail=f"the store was disturbed: {error}"))
            raise BackendFailed("The packages could not be copied into the session. Try again.") from None
        finally:
            await asyncio.shield(self._stored(self._store.release, tree))
        installed = tuple(
            dataclasses.replace(
                package, requested=package.name in outcome.wanted, replaced=shelf.replaced_by(package) or None
            )
            for package in tree.packages
        )
        news = tuple(package for package in installed if package.requested or shelf.lacks(package))
        shelves[language] = Shelf(
            shelf.wanted | outcome.wanted, {(package.name, package.version) for package in installed}
        )
        named = {package.name for package in installed}
        there = [
            Package(name, version, requested=True)
            for name in outcome.wanted
            if name not in named and (version := self._clients[language].own(name))
        ]
        return dataclasses.replace(
            report,
            installed=news,
            present=(*present, *there),
            size=tree.size,
            notices=tuple(_replaced(package, language) for package in news if package.replaced),
        )

    def _sort(
        self, requests: Sequence[str], language: Ecosystem
    ) -> tuple[dict[str, Wanted], list[Package], list[Refusal]]:
        """What must be fetched by name, what sessions have anyway, and what is refused at sight."""
        wanted: dict[str, Wanted] = {}
        present: list[Package] = []
        refused: list[Refusal] = []
        for request in dict.fromkeys(requests):
            try:
                want = parse(request, language)
                self._lists.check(want.name)
                if want.name in wanted:
                    raise Unusable("it is named twice with different versions")
                if package := self._clients[language].ready(want):
                    present.append(package)
                else:
                    wanted[want.name] = want
            except Unusable as error:
                refused.append(Refusal(_shown(request), str(error)))
        return wanted, present, refused

    async def _fetch(
        self, former: dict[str, Wanted], wanted: dict[str, Wanted], language: Ecosystem, progress: Progress
    ) -> _Outcome:
        """Fetch the whole set, without those requests that turn out to be to blame."""
        wanted = dict(wanted)
        refused: list[Refusal] = []
        most = self._settings.package_max_count
        if len(former | wanted) > most:
            reason = f"the session has {len(former)} packages already; at most {most} may be named in a session"
            return _Outcome(None, {}, [Refusal(want.text, reason) for want in wanted.values()])
        if self._places.locked():
            progress("Waiting for the installations of other sessions.")
        async with self._places:
            deadline = asyncio.get_running_loop().time() + self._settings.package_timeout
            while wanted:
                try:
                    tree = await self._tree([*(former | wanted).values()], language, deadline, progress)
                    return _Outcome(tree, wanted, refused)
                except FetchFailed as error:
                    if error.detail:
                        self._publish(Fault(where="packages", detail=error.detail))
                    blamed = [name for name in wanted if name in error.culprits] or list(wanted)
                    refused += [Refusal(wanted.pop(name).text, str(error)) for name in blamed]
        return _Outcome(None, {}, refused)

    async def _tree(self, wanted: Sequence[Wanted], language: Ecosystem, deadline: float, progress: Progress) -> Tree:
        key = self._store.key(wanted, language)
        async with self._storing:
            tree = self._store.find(key)
        if tree is not None:
            tree.used += 1
            return tree
        stage = await self._stored(self._store.stage)
        try:
            downloads = self._store.downloads
            job = Job(
                stage=stage,
                downloads=downloads,
                deadline=deadline,
                seconds=self._settings.package_timeout,
                max_mb=self._settings.package_max_mb,
                progress=progress,
            )
            packages = await self._clients[language].fetch(wanted, job)
            if denied := next((package.name for package in packages if self._lists.denied(package.name)), None):
                raise FetchFailed(f"it needs {denied}, which is on the list of packages that may not be installed here")
            size, _ = await asyncio.to_thread(measure, job.tree)
            if size > self._settings.package_max_mb * 1_000_000:
                raise job.too_large()
            tree = await self._stored(self._store.keep, key, job.tree, packages)
            tree.used += 1
            return tree
        finally:
            # shielded: also a cancelled fetch leaves nothing behind
            await asyncio.shield(self._stored(self._clean, stage))

    def _clean(self, stage: Path) -> None:
        shutil.rmtree(stage, ignore_errors=True)
        if len(self._under_way) == 1:
            self._store.trim()

    async def _stored(self, act: Callable[..., T], *args: Any) -> T:
        """Let the store work, in a thread, one call at a time."""
        async with self._storing:
            return await asyncio.to_thread(act, *args)


async def _pieces(folder: Path) -> AsyncIterator[bytes]:
    pieces = pack(folder)
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


def _shown(request: str) -> str:
    text = request.encode(errors="backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _replaced(package: Package, language: Ecosystem) -> str:
    restart = "import os; os._exit(0)" if language == "python" else "process.exit()"
    return (
        f"{package.name} {package.replaced} was replaced by {package.version}. Where it is imported already the old "
        f"one stays until the interpreter is restarted with `{restart}` in a cell, which loses the variables."
    )
