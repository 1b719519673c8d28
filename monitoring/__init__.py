"""What operators see: logs, metrics, alert rules and a dashboard, all made from the events of one bus."""

from monitoring.logs import configure
from monitoring.subscription import Monitoring, subscribe

__all__ = ["Monitoring", "configure", "subscribe"]
