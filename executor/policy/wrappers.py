"""Commands that run the command in their arguments: `env`, `xargs`, `timeout`, `find -exec` and their like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from executor.policy.budget import TooComplex

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "rbash"})
"""Programs that read bash, near enough: from `-c`, a file or standard input."""

_ASSIGNMENT = re.compile(r"\w+=")
_MAX_STEPS = 32
_MAX_WORDS = 256


@dataclass(frozen=True, slots=True)
class Wrapper:
    """How to get past a wrapper's own arguments.

    `valued` are the short options that take the next word as their value, `long` the long ones; `skip` counts words of
    its own that come before the command; `assignments` says whether `NAME=value` words may come before it; `silent` are
    options with which nothing is run.
    """

    valued: str = ""
    long: frozenset[str] = frozenset()
    skip: int = 0
    assignments: bool = False
    silent: str = ""


def _long(names: str) -> frozenset[str]:
    return frozenset(f"--{name}" for name in names.split())


WRAPPERS: dict[str, Wrapper] = {
    "command": Wrapper(silent="vV"),
    "builtin": Wrapper(),
    "exec": Wrapper(valued="a"),
    "coproc": Wrapper(),
    "time": Wrapper(valued="fo", long=_long("format output")),
    "then": Wrapper(),
    "do": Wrapper(),
    "env": Wrapper(valued="uCS", long=_long("unset chdir"), assignments=True),
    "nohup": Wrapper(),
    "setsid": Wrapper(),
    "nice": Wrapper(valued="n", long=_long("adjustment")),
    "ionice": Wrapper(valued="cnpPu", long=_long("class classdata")),
    "chrt": Wrapper(valued="TPD", skip=1),
    "taskset": Wrapper(skip=1),
    "timeout": Wrapper(valued="ks", long=_long("kill-after signal"), skip=1),
    "stdbuf": Wrapper(valued="ioe", long=_long("input output error")),
    "xargs": Wrapper(
        valued="IEdnPLsa",
        long=_long("replace eof delimiter max-args max-procs max-lines max-chars arg-file process-slot-var"),
    ),
    "parallel": Wrapper(valued="jIaNnLSd", long=_long("jobs arg-file delay timeout retries results joblog")),
    "busybox": Wrapper(),
    "toybox": Wrapper(),
    "strace": Wrapper(valued="oepuEsaIbSPO"),
    "ltrace": Wrapper(valued="oepuxlsan"),
    "unshare": Wrapper(valued="SGRw", long=_long("setuid setgid root wd map-user map-group")),
    "nsenter": Wrapper(valued="tSG", long=_long("target setuid setgid")),
    "setarch": Wrapper(skip=1),
    "linux32": Wrapper(),
    "linux64": Wrapper(),
    "setpriv": Wrapper(long=_long("reuid regid groups rlimit securebits")),
    "prlimit": Wrapper(valued="p", long=_long("pid")),
    "flock": Wrapper(valued="wE", long=_long("timeout wait conflict-exit-code"), skip=1),
    "watch": Wrapper(valued="nq", long=_long("interval")),
    "unbuffer": Wrapper(),
    # refused themselves, and what they run is named as well
    "sudo": Wrapper(valued="ugpCDhRrTtU", long=_long("user group prompt chdir host role type"), assignments=True),
    "doas": Wrapper(valued="uC"),
    "chroot": Wrapper(long=_long("userspec groups"), skip=1),
    "pkexec": Wrapper(long=_long("user")),
}

_LOADER = re.compile(r"ld-(linux|musl)[\w.-]*\.so[.\d]*$")


def base_name(word: str) -> str:
    """The program's name without its folder."""
    return word.rsplit("/", 1)[-1]


def commands(argv: Sequence[str]) -> Iterator[list[str]]:
    """The command itself, then each command that it runs from its arguments, outermost first.

    Depends on nothing but the words: a word that only running would tell simply has no known name. Raises TooComplex
    for a tower of more than 32.
    """
    todo: list[list[str]] = [list(argv)]
    steps = 0
    while todo:
        steps += 1
        if steps > _MAX_STEPS:
            raise TooComplex
        words = todo.pop(0)
        if not words:
            continue
        yield words
        name = base_name(words[0])
        if name in ("find", "fd", "fdfind"):
            todo += _after_exec(words)
        elif (wrapper := WRAPPERS.get(name)) is not None:
            rest = _past(words[1:], wrapper)
            if rest and name == "coproc" and len(rest) > 1:
                todo.append(rest[1:])  # `coproc NAME command`
            todo.append(rest)
        elif _LOADER.match(name):
            todo.append([word for word in words[1:] if not word.startswith("-")])


def shell_script(argv: Sequence[str]) -> tuple[str | None, bool]:
    """For a shell: the text after `-c` (None without one), and whether it reads commands from standard input."""
    if base_name(argv[0]) not in SHELLS:
        return None, False
    words = iter(argv[1:])
    for word in words:
        if word.startswith("--"):
            if word in ("--rcfile", "--init-file"):
                next(words, None)
        elif word[:1] in "-+" and len(word) > 1:
            if "c" in word[1:] and word[0] == "-":
                for script in words:
                    if not (script[:1] in ("-", "+") and len(script) > 1):
                        return script, False
                return None, False
            if word[1:] in ("o", "O"):
                next(words, None)
        elif word in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0") or not word.strip("\x00"):
            return None, True
        else:
            return None, False
    return None, True


def _past(words: list[str], wrapper: Wrapper) -> list[str]:
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            index += 1
            break
        if word.startswith("--"):
            index += 2 if word in wrapper.long else 1
            if word.startswith("--split-string="):
                return [*word.partition("=")[2].split(), *words[index:]]
        elif word.startswith("-") and len(word) > 1:
            if any(letter in word for letter in wrapper.silent):
                return []
            if word.startswith("-S") and "S" in wrapper.valued and wrapper.assignments:  # env -S 'command arguments'
                text = word[2:] or (words[index + 1] if index + 1 < len(words) else "")
                return text.split() + words[index + (1 if word[2:] else 2) :]
            index += 2 if word[-1] in wrapper.valued and len(word) == 2 else 1
        elif wrapper.assignments and _ASSIGNMENT.match(word):
            index += 1
        else:
            break
    index += wrapper.skip
    while wrapper.assignments and index < len(words) and _ASSIGNMENT.match(words[index]):
        index += 1
    return words[index:]


def _after_exec(words: list[str]) -> list[list[str]]:
    flags = {"-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch"}
    starts = [i + 1 for i, word in enumerate(words) if word in flags][: _MAX_STEPS + 1]
    return [words[i : i + _MAX_WORDS] for i in starts]
