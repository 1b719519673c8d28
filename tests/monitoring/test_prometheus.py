"""Prometheus: configuration, rules and dashboard against the real tools and the metrics that the app exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

import monitoring
from monitoring.prometheus import EXAMPLE_ADDRESS, RULES, configuration
from tests.monitoring.conftest import Watched

HERE = Path(monitoring.__file__).parent
RULE_TESTS = Path(__file__).parent / "rules"
RULE_FILES = sorted(RULES.glob("*.yml"))
DASHBOARD: dict[str, Any] = json.loads((HERE / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus brings it"
)


def check(*arguments: str, input: str | None = None, cwd: Path | None = None) -> str:
    """What promtool says; the test fails with it where promtool is not content."""
    done = subprocess.run(
        ["promtool", *arguments], input=input, capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [
        rule for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]


def expressions() -> list[str]:
    """All of the dashboard's, with its variables filled in."""
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    return [e.replace("$job", "code-interpreter").replace("$__rate_interval", "2m") for e in found]


@promtool
def test_the_metrics_pass_promtools_check(watched: Watched) -> None:
    said = check("check", "metrics", input=generate_latest(watched.metrics.registry).decode())
    assert said.strip() == ""


@promtool
def test_the_rules_pass_promtools_check() -> None:
    assert "SUCCESS" in check("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULE_FILES))


@promtool
def test_every_alert_fires_for_its_cause_and_clears_after() -> None:
    assert "SUCCESS" in check("test", "rules", str(RULE_TESTS / "alerts.test.yml"))


def test_every_alert_has_such_a_test_with_a_firing_and_a_clearing() -> None:
    tests = yaml.safe_load((RULE_TESTS / "alerts.test.yml").read_text())["tests"]
    fires, clears = set(), set()
    for test in tests:
        for case in test["alert_rule_test"]:
            (fires if case.get("exp_alerts") else clears).add(case["alertname"])
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert len(alerts) >= 15
    assert fires == clears == alerts


def test_every_alert_has_a_severity_a_summary_and_its_own_runbook() -> None:
    page = (HERE.parent / "docs" / "operations.md").read_text()
    for rule in rules():
        if "alert" not in rule:
            continue
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert f"### {rule['alert']}\n" in page, f"{rule['alert']} has no runbook in docs/operations.md"


@promtool
@pytest.mark.parametrize(
    "arguments",
    [
        {"address": EXAMPLE_ADDRESS},
        {"address": EXAMPLE_ADDRESS, "metrics_key": 'odd "key" $1 #: \\'},
        {"address": "http://127.0.0.1:7860", "token_file": None, "interval": 5},
        {"address": "https://host:8443/below/", "token_file": "a file"},
    ],
)
def test_a_configuration_passes_promtools_check(arguments: dict[str, Any], tmp_path: Path) -> None:
    text = configuration(**arguments)
    (tmp_path / "prometheus.yml").write_text(text)
    (tmp_path / (arguments.get("token_file") or "hf-token")).write_text("hf_x")
    shutil.copytree(RULES, tmp_path / "rules")
    assert "2 rule files found" in check("check", "config", "prometheus.yml", cwd=tmp_path)
    [scrape] = yaml.safe_load(text)["scrape_configs"]
    assert scrape.get("params", {}).get("key", [""])[0] == arguments.get("metrics_key", "")
    assert ("authorization" in scrape) is (arguments.get("token_file", "hf-token") is not None)


def test_an_address_becomes_scheme_target_and_path() -> None:
    [scrape] = yaml.safe_load(configuration("https://host:8443/below/"))["scrape_configs"]
    assert (scrape["scheme"], scrape["metrics_path"]) == ("https", "/below/metrics")
    assert scrape["static_configs"] == [{"targets": ["host:8443"]}]
    for wrong in ("owner-name.hf.space", "ftp://host", "https://", ""):
        with pytest.raises(ValueError, match="address of a Space"):
            configuration(wrong)


def test_the_example_configuration_is_what_the_code_makes() -> None:
    assert (HERE / "prometheus.yml").read_text() == configuration(EXAMPLE_ADDRESS)


@promtool
def test_every_panels_query_is_valid() -> None:
    group = {"name": "panels", "rules": [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(expressions())]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [group]}, file)
        file.flush()
        assert f"{len(expressions())} rules found" in check("check", "rules", "--lint=none", file.name)


def test_rules_and_panels_ask_only_for_what_there_is(watched: Watched) -> None:
    families = list(watched.metrics.registry.collect())
    labels = {name: set(labels) for name, labels in watched.metrics.labels.items()}
    samples: dict[str, set[str]] = {"up": set()}
    for family in families:
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        for ending in endings:
            samples[family.name + ending] = labels.get(family.name, set()) | ({"le"} if ending == "_bucket" else set())
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    queries = expressions() + [rule["expr"] for rule in rules()]
    asked: set[str] = set()
    for query in queries:
        bare = re.sub(r'"[^"]*"', "", query)
        names = set(re.findall(r"\b((?:interpreter|process|job:interpreter)[A-Za-z0-9_:]*|up)\b(?!\s*\()", bare))
        asked |= names
        assert names <= samples.keys() | recorded, f"{names - samples.keys() - recorded} in {query}"
        for name, matchers in re.findall(r"\b(interpreter\w+)\{([^}]*)\}", query):
            used = set(re.findall(r"(\w+)\s*=~?", matchers)) - {"job"}
            assert used <= samples[name], f"{used - samples[name]} of {name} in {query}"
    assert {"interpreter_executions_total", "interpreter_sandbox_level", "up"} <= asked
    assert recorded <= asked, f"recorded and never asked for: {recorded - asked}"


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids)) > 30
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "job"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    for panel in PANELS:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) > 0
