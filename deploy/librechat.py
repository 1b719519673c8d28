"""What goes to LibreChat's side: the yaml and .env blocks, and a compose override with a proxy for signed links."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from deploy.errors import DeployError, Exit
from space.librechat import AuthHeader, Transport, env_block, yaml_block

ASLEEP = """\
# A sleeping Space wakes with the first request, but LibreChat gives up after about 15 seconds and then refuses for up
# to five minutes. Run `python -m deploy wake` first, or `python -m deploy wake --every 43200` to keep it awake."""


def blocks(
    address: str, *, transport: Transport, version: str, auth_header: AuthHeader, access_key: bool, whole_file: bool
) -> str:
    """Both blocks with a word on where each goes. Raises DeployError for a version that is none."""
    try:
        yaml = yaml_block(
            address,
            transport=transport,
            version=version,
            auth_header=auth_header,
            access_key=access_key,
            whole_file=whole_file,
        )
    except ValueError as error:
        raise DeployError(str(error), Exit.USAGE) from None
    env = env_block(auth_header=auth_header, access_key=access_key)
    return f"# into librechat.yaml\n{ASLEEP}\n{yaml}\n# into LibreChat's .env: a token that may only read\n{env}"


def write_override(folder: Path, *, address: str, public_base_url: str) -> list[Path]:
    """Write `docker-compose.override.yml` and the proxy's Caddyfile into LibreChat's folder.

    The proxy adds the token for signed links only, and sends links to a page on to the Space; `public_base_url` is its
    address as people see it.
    Raises DeployError where one of the files is there already and differs.
    """
    if not public_base_url.startswith(("http://", "https://")):
        raise DeployError(f"--public-base-url {public_base_url!r}: give the proxy's http or https address.", Exit.USAGE)
    templates = files("deploy") / "templates"
    written = []
    for name, place in (("docker-compose.override.yml", folder), ("Caddyfile", folder / "code-interpreter-links")):
        text = (templates / name).read_text()
        text = text.replace("@SPACE@", address).replace("@PUBLIC@", public_base_url.rstrip("/"))
        path = place / name
        if path.exists() and path.read_text() != text:
            raise DeployError(
                f"{path} exists and is different. Move it away, or merge by hand what `--write` would put there.",
                Exit.USAGE,
            )
        place.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written
