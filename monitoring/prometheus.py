"""Prometheus: the configuration that scrapes one Space, for an address; pure, so that deploy can use it."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

RULES = Path(__file__).parent / "rules"
"""Folder of the recording and alert rules."""
JOB = "code-interpreter"
"""Value of the label `job`, which rules and dashboard ask for."""
HEAD = "# Scrapes "
"""How a configuration of ours begins."""
EXAMPLE_ADDRESS = "https://owner-name.hf.space"


def configuration(
    address: str,
    *,
    token_file: str | None = "hf-token",  # noqa: S107 - the name of a file
    metrics_key: str = "",
    rules: str = "rules/*.yml",
    interval: int = 30,
) -> str:
    """The text of a `prometheus.yml` for the Space at `address` (http or https).

    `token_file` names the file with the Hub token that opens a private Space, None where there is no such wall; a
    relative path counts from the configuration's folder, as does `rules`, a pattern. `metrics_key` is METRICS_KEY, for
    a Space that has one: it is written into the text. `interval` is in seconds. Raises ValueError for an address that
    has no host. Each scrape counts as a visit: a Space on free hardware that is scraped does not fall asleep.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{address!r} is no http or https address of a Space.")
    lines = [
        f"{HEAD}{parts.scheme}://{parts.netloc}/metrics. Check with: promtool check config prometheus.yml",
        "global:",
        f"  scrape_interval: {interval}s",
        f"  scrape_timeout: {min(10, interval)}s",
        f"  evaluation_interval: {interval}s",
        "rule_files:",
        f"  - {json.dumps(rules)}",
        "scrape_configs:",
        f"  - job_name: {JOB}",
        f"    scheme: {parts.scheme}",
        f"    metrics_path: {json.dumps(parts.path.rstrip('/') + '/metrics')}",
    ]
    if metrics_key:
        lines += ["    params:", f"      key: [{json.dumps(metrics_key)}]"]
    if token_file is not None:
        lines += [
            "    # one line: a token that may read this Space and nothing else",
            "    authorization:",
            "      type: Bearer",
            f"      credentials_file: {json.dumps(token_file)}",
        ]
    lines += ["    static_configs:", f"      - targets: [{json.dumps(parts.netloc)}]"]
    return "\n".join(lines) + "\n"
