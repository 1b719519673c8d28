"""Rules: what Prometheus records and alerts on; data only, a package so that installing brings it along."""
