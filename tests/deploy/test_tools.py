"""Rules, manifests and units, checked by the tools they are for."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.conftest import require
from tests.support.nats import nats_server_binary
from tests.unit.deploy.chart import CHART, EVERYTHING, KUBERNETES, RENDERED, manifests, render

DEPLOY: Final = Path(__file__).parents[2] / "deploy"


def run(*command: str, cwd: Path = DEPLOY, **environment: str) -> str:
    """What a command that succeeds says."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def promtool() -> str:
    """Path of Prometheus's tool."""
    return require("promtool", shutil.which("promtool"))


@pytest.fixture(scope="module")
def helm() -> str:
    """Path of Helm; Debian does not have it."""
    found = shutil.which("helm")
    if found is None:
        pytest.skip("helm is missing; go install helm.sh/helm/v3/cmd/helm@latest")
    return found


def test_alerts_fire_and_do_not_fire_as_they_should(promtool: str) -> None:
    run(promtool, "test", "rules", "alerts_test.yml", cwd=DEPLOY / "prometheus")


def test_prometheus_takes_its_configuration_and_the_rules(promtool: str) -> None:
    said = run(promtool, "check", "config", "prometheus.yml", cwd=DEPLOY / "prometheus")

    assert "0 rules" not in said


def test_prometheus_takes_the_queries_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    panels = json.loads((DEPLOY / "grafana/gateway.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$\w+", "5m", query)}
        for number, query in enumerate(queries)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", str(file))


def test_helm_renders_what_is_kept(helm: str) -> None:
    assert RENDERED.read_text().partition("\n")[2] == render(*EVERYTHING, helm=helm)
    assert "0 chart(s) failed" in run(
        helm, "lint", "--strict", "--kube-version", KUBERNETES, str(CHART)
    )


@pytest.mark.parametrize(
    ("delay", "window", "before", "grace"), [(5, 20, 5, 40), (0, 0, 0, 10), (2.5, 600, 3, 616)]
)
def test_the_grace_period_follows_the_drain(
    helm: str, delay: float, window: float, before: int, grace: int
) -> None:
    text = render(
        f"config.drain.delay_seconds={delay}", f"config.drain.window_seconds={window}", helm=helm
    )
    [pod] = [m["spec"]["template"]["spec"] for m in manifests(text) if m["kind"] == "Deployment"]

    assert pod["terminationGracePeriodSeconds"] == grace
    [container] = pod["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(before)]


@pytest.mark.parametrize(
    "wrong", ["networkPolicy.internalFrom=[]", "networkPolicy.internalFrom=null", "replica=3"]
)
def test_helm_refuses_values_that_are_wrong(helm: str, wrong: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        render(wrong, helm=helm)


@pytest.mark.parametrize("unit", ["gateway.service", "gateway@.service"])
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is missing; apt-get install systemd")
    # it wants the program to be there
    text = (DEPLOY / "systemd" / unit).read_text().replace("/opt/gateway/bin/gateway", "/bin/true")
    file = tmp_path / unit.replace("@", "@1")
    file.write_text(text)

    assert run(tool, "verify", "--man=no", str(file)) == ""


def test_nats_takes_the_file_of_compose() -> None:
    nats = require("nats-server", nats_server_binary())

    run(nats, "-t", "-c", str(DEPLOY / "compose/nats.conf"), NATS_NAME="nats-1")
