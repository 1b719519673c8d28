"""The deployer that gets killed. The fork server imports this, so that what costs time is done once for all of them."""

from __future__ import annotations

import deploy.state
from deploy.apply import apply
from deploy.bundle import Bundle
from deploy.hub import Hub
from deploy.trust import trusted
from tests.deploy.conftest import FAST, WRITE, a_target

TARGET = a_target()

trusted()


def deploying(url: str, files: dict[str, bytes]) -> None:
    """Bring the Hub at `url` to `TARGET` with these files."""
    deploy.state.SCRYPT_COST = 2  # cheap fingerprints will do
    client = Hub(endpoint=url, token=WRITE, hardware=TARGET.hardware, pace=FAST)
    client.whoami()
    apply(client, TARGET, Bundle(files), say=lambda _: None)
