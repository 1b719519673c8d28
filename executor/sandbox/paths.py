"""Which files a guest may read: interpreters, libraries, and a few files of /etc, /proc and /dev; nothing of ours."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

from executor.errors import SettingsError
from executor.sandbox import landlock
from executor.sandbox.landlock import Grant, grants

_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# no passwd, group, hosts, resolv.conf, machine-id: they tell of the host, and nothing here needs them
_ETC: Final = (
    *("/etc/alternatives", "/etc/bash.bashrc", "/etc/ca-certificates", "/etc/debian_version", "/etc/fonts"),
    *("/etc/gai.conf", "/etc/inputrc", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/locale.alias"),
    *("/etc/localtime", "/etc/lsb-release", "/etc/magic", "/etc/magic.mime", "/etc/mime.types", "/etc/nsswitch.conf"),
    *(
        "/etc/os-release",
        "/etc/papersize",
        "/etc/perl",
        "/etc/profile",
        "/etc/protocols",
        "/etc/python3",
        "/etc/services",
    ),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/terminfo", "/etc/timezone", "/etc/ImageMagick-6"),
)

_PROC: Final = tuple(f"/proc/{name}" for name in ("cpuinfo", "loadavg", "meminfo", "stat", "uptime", "version"))
_SYS: Final = ("/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage")
_READABLE_DEVICES: Final = ("/dev/random", "/dev/urandom")
_WRITABLE_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full")


def interpreter_paths() -> list[str]:
    """Where this Python, its packages and its system libraries lie."""
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.dirname(sys.executable)]
    found += [os.path.dirname(os.path.realpath(sys.executable))]
    found += [path for key in ("stdlib", "platstdlib", "purelib", "platlib") if (path := sysconfig.get_path(key))]
    # packages of the user's own (pip install --user) are outside of the prefix
    found += [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    return list(dict.fromkeys(path for path in found if os.path.isdir(path)))


def must_be_hidden(folders: Iterable[str], setting: str, asked: Iterable[str] = ()) -> None:
    """Raises SettingsError where one of the folders is below what guests may read: the system's, or `asked`."""
    for path in asked or (*_SYSTEM, *interpreter_paths()):
        real = os.path.realpath(path)
        for hidden in map(os.path.realpath, folders):
            if hidden == real or hidden.startswith(real.rstrip("/") + "/"):
                raise SettingsError(
                    f"{setting}={hidden}: sessions may read {path}, so it would show them each other. Choose a folder "
                    "outside of it."
                )


def readable(extra: Iterable[str], *, secret: Iterable[str]) -> tuple[list[Grant], list[tuple[str, str]]]:
    """Grants on everything that a guest may read, and links of (path, target) that lead there.

    `extra` are files or folders of the languages' own. Raises SettingsError where one of the folders in `secret` (the
    sessions, the server's state) would be readable with it.
    """
    asked = [*_SYSTEM, *interpreter_paths(), *extra]
    must_be_hidden(secret, "WORK_DIR", asked)
    found = grants(asked, landlock.RUN) + grants(_ETC, landlock.READ)
    found += grants((*_PROC, *_SYS, *_READABLE_DEVICES), landlock.READ) + grants(_WRITABLE_DEVICES, landlock.DEVICE)
    links = [(path, os.path.realpath(path)) for path in (*asked, *_ETC) if os.path.realpath(path) != path]
    needed: list[Grant] = []
    for grant in sorted(found, key=lambda grant: len(grant.path)):
        if any(_covers(other, grant) for other in needed):
            os.close(grant.fd)
        else:
            needed.append(grant)
    return needed, [link for link in links if os.path.exists(link[1])]


def _covers(wide: Grant, narrow: Grant) -> bool:
    """Whether one grant makes another superfluous; every session pays for each."""
    below = narrow.path == wide.path or narrow.path.startswith(wide.path + "/")
    return below and narrow.rights & ~wide.rights == 0
