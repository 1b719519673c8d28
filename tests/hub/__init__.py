"""A local Hub: plays the routes of the Hugging Face Hub that deploying uses, fails where told, and records it all."""

from tests.hub.faults import Cut, Fault, Kill, Slow, Status
from tests.hub.record import Exchange
from tests.hub.server import LocalHub

__all__ = ["Cut", "Exchange", "Fault", "Kill", "LocalHub", "Slow", "Status"]
