"""Requests: names and versions of packages as a caller writes them. Nothing else passes: no address, path or option."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from executor.packages.report import Ecosystem

MAX_REQUEST = 200
"""Characters of one request."""

# npm's own rule for names; the version is a range or a tag. What npm would take for a file, a folder, an alias, an
# address or a repository has one of / : or ends like an archive or begins with a dot.
_NPM = re.compile(
    r"(?P<name>(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9][a-z0-9._~-]*)(?:@(?P<version>[\w^~<>=*][\w.^~<>=*+| -]*))?"
)
_ARCHIVE = re.compile(r"\.(?:tgz|tar|tar\.gz|gz|zip|whl)$", re.IGNORECASE)

EXAMPLES = {"python": '"polars" or "polars>=1.0"', "javascript": '"lodash" or "lodash@4"'}


class Unusable(Exception):
    """A request that cannot be carried out; its text is the sentence that says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request in order: `name` in its one spelling, `text` as the package client takes it."""

    name: str
    text: str
    specifier: SpecifierSet | None = None
    extras: frozenset[str] = frozenset()


def parse(text: str, language: Ecosystem) -> Wanted:
    """The request in order. Raises Unusable."""
    text = text.strip()
    if not text or len(text) > MAX_REQUEST or not text.isprintable() or text.startswith("-"):
        raise Unusable(_only(language))
    return _python(text) if language == "python" else _javascript(text)


def _python(text: str) -> Wanted:
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise Unusable(_only("python")) from None
    # pip takes a name that ends like an archive for a file
    if requirement.url or requirement.marker or _ARCHIVE.search(requirement.name):
        raise Unusable(_only("python"))
    name = canonicalize_name(requirement.name)
    return Wanted(name, str(requirement), requirement.specifier, frozenset(requirement.extras))


def _javascript(text: str) -> Wanted:
    match = _NPM.fullmatch(text)
    if match is None or _ARCHIVE.search(text):
        raise Unusable(_only("javascript"))
    return Wanted(match["name"], text)


def _only(language: Ecosystem) -> str:
    return f"only names and versions are taken, such as {EXAMPLES[language]}: no address, path or option"


@dataclass(frozen=True, slots=True)
class Lists:
    """The operator's lists of names, with `*` and `?` as in file names. An empty `allow` allows all; `deny` also holds
    for what a package brings along."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]

    def check(self, name: str) -> None:
        """Raises Unusable where the name may not be asked for."""
        if self.denied(name):
            raise Unusable("it is on the list of packages that may not be installed here")
        if self.allow and not _listed(name, self.allow):
            raise Unusable(f"it is not on the list of packages that may be installed here: {', '.join(self.allow)}")

    def denied(self, name: str) -> bool:
        """Whether it may not come along, either."""
        return _listed(name, self.deny)


def _listed(name: str, patterns: Iterable[str]) -> bool:
    spelled = canonicalize_name(name)
    return any(fnmatchcase(name, pattern.lower()) or fnmatchcase(spelled, _spelled(pattern)) for pattern in patterns)


def _spelled(pattern: str) -> str:
    return re.sub(r"[-_.]+", "-", pattern).lower()
