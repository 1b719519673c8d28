"""Parts: what a started executor consists of, and how it is put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from executor.backend import Backend
from executor.cells import Cells
from executor.errors import StoreFailed
from executor.events import Bus, Fault
from executor.keeper import Keeper
from executor.owners import SHARED
from executor.packages.installer import Installer
from executor.parking import Parking
from executor.quotas import Quotas
from executor.runner import PolicyLevel, Runner
from executor.sandbox.report import SandboxReport
from executor.sessions import SessionTable
from executor.settings import Settings
from executor.shares import Shares, share_of
from executor.tasks import Tasks

if TYPE_CHECKING:
    from executor.snapshots import Snapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that works for the façade; `snapshots` is None where nothing is kept."""

    backend: Backend
    sandbox: SandboxReport
    keeper: Keeper
    parking: Parking
    snapshots: Snapshots | None
    quotas: Quotas
    runner: Runner
    installer: Installer
    policy_level: PolicyLevel


async def assemble(settings: Settings, backend: Backend, sandbox: SandboxReport, *, bus: Bus, tasks: Tasks) -> Parts:
    """The parts, wired with one another, on a backend that is open."""
    quotas = Quotas(settings, shared=SHARED, publish=bus.publish)
    shares = Shares(share_of(settings), shared=SHARED, publish=bus.publish)
    cells = Cells(settings.concurrent_cells, settings.owner_concurrent, shared=SHARED, publish=bus.publish)
    table = SessionTable()
    snapshots = await _open_snapshots(settings, backend, table, quotas, bus=bus, tasks=tasks)
    parking = Parking(
        settings, backend, table=table, snapshots=snapshots, quotas=quotas, shared=SHARED, bus=bus, tasks=tasks
    )
    keeper = Keeper(
        settings,
        backend,
        sandbox,
        table=table,
        snapshots=snapshots,
        quotas=quotas,
        shares=shares,
        bus=bus,
        tasks=tasks,
        parking=parking,
    )
    level = _policy_level(settings, sandbox)
    runner = Runner(
        backend,
        cells=cells,
        queue_wait=settings.queue_wait,
        bus=bus,
        tasks=tasks,
        level=level,
        rested=shares.rested,
    )
    return Parts(
        backend=backend,
        sandbox=sandbox,
        keeper=keeper,
        parking=parking,
        snapshots=snapshots,
        quotas=quotas,
        runner=runner,
        installer=Installer(settings, backend, bus.publish),
        policy_level=level,
    )


def _policy_level(settings: Settings, sandbox: SandboxReport) -> PolicyLevel:
    """`auto` is `standard` where the sandbox holds, `strict` where it is weak."""
    if settings.security_policy == "auto":
        return "strict" if sandbox.level == "weak" else "standard"
    return settings.security_policy


async def _open_snapshots(
    settings: Settings, backend: Backend, table: SessionTable, quotas: Quotas, *, bus: Bus, tasks: Tasks
) -> Snapshots | None:
    if not settings.snapshots:
        return None
    # here and not above: the zygote, of which all sessions are forks, has no use for the store
    from executor.snapshots import Snapshots  # noqa: PLC0415

    snapshots = Snapshots(settings, backend, table=table, quotas=quotas, shared=SHARED, bus=bus, tasks=tasks)
    try:
        await snapshots.open()
    except StoreFailed as error:
        bus.publish(Fault(where="store", detail=f"{error} Without snapshots sessions end where they would be parked."))
        return None
    return snapshots
