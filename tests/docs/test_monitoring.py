"""The Grafana dashboard and the alerts: a real Prometheus scrapes real processes of coord, and
answers every query of both."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT
from tests.support.waits import eventually

DEPLOY = ROOT / "docs" / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/coord.json").read_text(encoding="utf-8"))
ALERTS = DEPLOY / "prometheus/coord-alerts.yml"
CANDIDATE = """\
import sys, time
import coord, prometheus_client
coord.metrics.enable()
port = int(sys.argv[1])
prometheus_client.start_http_server(port, addr="127.0.0.1")
with coord.Coordinator(sys.argv[2]) as c, c.leadership("importer", ttl=1.0):
    again = c.leadership("flapping", ttl=1.0)
    while True:  # terms that begin and end
        with again:
            again.wait(0.6)
            time.sleep(0.3)
"""
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}, {target['legendFormat']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def alerts() -> dict[str, str]:
    """The expression of each alert, as promtool reads it."""
    text = ALERTS.read_text(encoding="utf-8")
    matches = re.findall(
        r"alert: (\w+)\n(?: +#.*\n)* +expr: (>-\n(?: {10,}.*\n)+|.*\n)", text, re.MULTILINE
    )
    return {name: " ".join(expression.removeprefix(">-").split()) for name, expression in matches}


class Prometheus:
    """A Prometheus that scrapes candidates four times per second."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self.ports = [free_port(), free_port()]
        targets = ", ".join(f'"127.0.0.1:{port}"' for port in self.ports)
        (directory / "prometheus.yml").write_text(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
            f"scrape_configs: [{{job_name: app, static_configs: [{{targets: [{targets}]}}]}}]\n"
        )
        url = f"sqlite://{directory}/coord.db"
        self.candidates = [
            subprocess.Popen([sys.executable, "-W", "error", "-c", CANDIDATE, str(port), url])
            for port in self.ports
        ]
        self.server = subprocess.Popen(
            [
                "prometheus", f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
            ]
        )  # fmt: skip

    def ask(self, expression: str) -> list[Any]:
        """The result of an instant query; empty while the server does not answer."""
        for variable, value in (("$__rate_interval", "10s"), ("$role", ".*")):
            expression = expression.replace(variable, value)
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=10
            ) as answer:
                samples: list[Any] = json.load(answer)["data"]["result"]
                return samples
        except urllib.error.HTTPError as err:
            if err.code == 503:  # it has not started yet
                return []
            raise AssertionError(err.read().decode()) from None
        except OSError:
            return []

    def values(self, expression: str) -> list[float]:
        """The same as numbers, without those that are not known yet."""
        values = [float(item["value"][1]) for item in self.ask(expression)]
        return [value for value in values if not math.isnan(value)]

    def close(self) -> None:
        for process in (*self.candidates, self.server):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    running = Prometheus(tmp_path_factory.mktemp("prometheus"))
    try:
        eventually(lambda: running.values("sum(coord_losses_total) > 2"))
        eventually(lambda: running.values('sum by (role) (coord_is_leader{role="importer"}) == 1'))
        yield running
    finally:
        running.close()


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("expression", QUERIES)
def test_a_panel_shows_something(prometheus: Prometheus, expression: str) -> None:
    eventually(lambda: prometheus.values(expression))


@pytest.mark.needs("prometheus")
def test_the_alerts_fire_when_the_leader_is_gone(prometheus: Prometheus) -> None:
    expressions = alerts()
    assert len(expressions) == ALERTS.read_text().count("alert:")
    without_leader = expressions["CoordRoleWithoutLeader"]

    def roles(expression: str) -> set[str]:
        return {item["metric"]["role"] for item in prometheus.ask(expression)}

    eventually(lambda: "importer" not in roles(without_leader))
    # The scrapes of two processes are not taken at the same time.
    eventually(lambda: "importer" not in roles(expressions["CoordTwoLeaders"]))
    for name in ("CoordTermsAreLost", "CoordRenewalsAreLate"):
        prometheus.ask(expressions[name])  # it is a valid query
    panel = next(item for item in DASHBOARD["panels"] if item["title"] == "Roles without a leader")
    for process in prometheus.candidates:
        process.send_signal(signal.SIGKILL)
        process.wait()
    eventually(lambda: {"importer", "flapping"} <= roles(without_leader))
    assert prometheus.values(panel["targets"][0]["expr"]) == [2.0]


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_files(tmp_path: Path) -> None:
    for command, name in (("config", "prometheus.yml"), ("rules", "coord-alerts.yml")):
        file = DEPLOY / "prometheus" / name
        done = subprocess.run(
            ["promtool", "check", command, str(file)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(ALERTS.read_text().replace("sum by (role)", "sum by role"))
    done = subprocess.run(["promtool", "check", "rules", str(wrong)], capture_output=True)
    assert done.returncode != 0


SERIES = {
    'coord_fencing_token{role="given_back",instance="x"}': "3x60",
    'coord_is_leader{role="given_back",instance="x"}': "1x10 0x50",
    'coord_fencing_token{role="led_twice",instance="x"}': "3x60",
    'coord_is_leader{role="led_twice",instance="x"}': "1x60",
    'coord_is_leader{role="led_twice",instance="y"}': "1x60",
    'coord_losses_total{role="led_twice",reason="expired",instance="x"}': "0+1x60",
    'coord_losses_total{role="given_back",reason="released",instance="x"}': "0+1x60",
    'coord_renewal_left_seconds_bucket{instance="x",le="1"}': "0+1x60",
    'coord_renewal_left_seconds_bucket{instance="x",le="+Inf"}': "0+1x60",
    'coord_renewal_left_seconds_bucket{instance="y",le="10"}': "0+0x60",
    'coord_renewal_left_seconds_bucket{instance="y",le="20"}': "0+1x60",
    'coord_renewal_left_seconds_bucket{instance="y",le="+Inf"}': "0+1x60",
}
"""Values every ten seconds: a role that nobody leads after 110 seconds, one that two lead, and two
processes, one of which renews late."""
FIRES = {
    "CoordRoleWithoutLeader": '{role="given_back"} 3',
    "CoordTwoLeaders": '{role="led_twice"} 2',
    "CoordTermsAreLost": '{role="led_twice", reason="expired"} 30',
    "CoordRenewalsAreLate": '{instance="x"} 0.01',
}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("name", FIRES)
def test_an_alert_fires_for_what_it_names_and_nothing_else(name: str, tmp_path: Path) -> None:
    labels, value = FIRES[name].rsplit(" ", 1)
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": [{"series": k, "values": v} for k, v in SERIES.items()],
                "promql_expr_test": [
                    {
                        "expr": f"round({alerts()[name]}, 0.01)",
                        "eval_time": "5m",
                        "exp_samples": [{"labels": labels, "value": float(value)}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "tests.yml").write_text(json.dumps(tests))  # JSON is YAML, too
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_complete() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"].endswith(".") for panel in panels)
    shown = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    exported = set(re.findall(r"`(coord_\w+)`", (ROOT / "docs/events.md").read_text()))
    assert exported
    assert {name for name in exported if name not in shown} == set()
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels]
    assert all(x + width <= 24 for x, _, width, _ in places)
