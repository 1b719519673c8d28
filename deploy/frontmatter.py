"""The Space's front matter: made from one source and held against the Hub's rules before anything is sent."""

from __future__ import annotations

from huggingface_hub import SpaceCardData

from deploy.config import Target
from deploy.errors import DeployError, Exit

COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SHORT_DESCRIPTION = 60
"""Most characters that the Hub takes for `short_description`; it refuses the push otherwise."""

KEYS = {
    "title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "pinned", "license",
    "short_description", "startup_duration_timeout", "suggested_hardware", "disable_embedding",
}  # fmt: skip
"""The keys of the Hub's reference that we use. Visibility, hardware and secrets have none: those are API calls."""


def front_matter(target: Target, *, sdk_version: str) -> str:
    """The front matter as YAML between its two `---` lines, with an empty line after it."""
    card = SpaceCardData(
        title=target.title,
        emoji="🧮",
        colorFrom="indigo",
        colorTo="green",
        sdk="gradio",
        sdk_version=sdk_version,
        python_version=target.python_version,
        app_file="app.py",
        pinned=False,
        license="mit",
        short_description="Runs Python, JavaScript and bash for LibreChat",
        suggested_hardware=target.hardware,
        disable_embedding=True,
    )
    check(card.to_dict())  # type: ignore[no-untyped-call]
    return f"---\n{card.to_yaml()}\n---\n\n"


def check(card: dict[str, object]) -> None:
    """Raise DeployError where the Hub would refuse the card, or silently ignore a key of it."""
    if unknown := sorted(set(card) - KEYS):
        raise _wrong(f"the Hub knows no key {unknown[0]!r}")
    for key in ("title", "sdk", "sdk_version", "python_version", "app_file"):
        if not isinstance(card.get(key), str) or not card[key]:
            raise _wrong(f"{key} must be text")
    for key in ("colorFrom", "colorTo"):
        if card.get(key) not in COLORS:
            raise _wrong(f"{key} must be one of {', '.join(sorted(COLORS))}")
    if len(str(card.get("short_description", ""))) > SHORT_DESCRIPTION:
        raise _wrong(f"short_description is longer than {SHORT_DESCRIPTION} characters")


def _wrong(what: str) -> DeployError:
    return DeployError(f"Front matter: {what}. Correct deploy/frontmatter.py or deploy.toml.", Exit.USAGE)
