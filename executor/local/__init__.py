"""LocalBackend: sessions as forked processes on this machine."""

from executor.local.backend import LocalBackend

__all__ = ["LocalBackend"]
