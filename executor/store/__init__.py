"""The store that snapshots of sessions lie in."""

from executor.store.medium import Folder, Medium
from executor.store.snapshot import Record, Snapshot, Usage
from executor.store.store import Store

__all__ = ["Folder", "Medium", "Record", "Snapshot", "Store", "Usage"]
