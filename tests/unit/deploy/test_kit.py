"""What is in ``deploy/`` fits the code and itself; what runs it is tested in tests/deploy."""

import copy
import dataclasses
import json
import math
import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

import gateway
from deploy.demo.backend import Settings
from gateway import live
from gateway.app.shutdown import LAST_SECONDS
from gateway.config import load_config
from gateway.config.check import LAST_SECONDS as END_SECONDS
from gateway.config.sections import DrainSettings, LimitsSettings
from gateway.lifecycle import CLOSING_SECONDS
from tests.unit.deploy.chart import CHART, RENDERED, digest, manifests

ROOT: Final = Path(__file__).parents[3]
DEPLOY: Final = ROOT / "deploy"
DRAIN: Final = DrainSettings()

MARGIN_SECONDS: Final = 5
GRACE_SECONDS: Final = DRAIN.delay_seconds + DRAIN.window_seconds + END_SECONDS + MARGIN_SECONDS

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: Final = {
    m["kind"]: m for m in manifests(RENDERED.read_text()) if m["metadata"]["name"] == "gateway"
}
SCHEMA: Final = json.loads(Path(__file__).with_name("kubernetes.schema.json").read_text())
KINDS: Final = {ref["$ref"].rsplit(".", 1)[1]: ref for ref in SCHEMA["oneOf"]}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    return spec


# the end of a replica


def test_the_documents_know_how_long_an_end_takes() -> None:
    assert END_SECONDS == CLOSING_SECONDS + LAST_SECONDS
    assert "five seconds more" in (DrainSettings.__doc__ or "")
    page = (ROOT / "docs/deployment.md").read_text()
    assert (
        f"| `TimeoutStopSec`, `stop_grace_period` | delay + window + 5 + 5 = {GRACE_SECONDS:g} |"
        in page
    )
    assert f"= {GRACE_SECONDS + DRAIN.delay_seconds:g} |" in page


@pytest.mark.parametrize("unit", ["gateway.service", "gateway@.service"])
def test_systemd_waits_for_the_drain(unit: str) -> None:
    assert f"\nTimeoutStopSec={GRACE_SECONDS:g}\n" in (DEPLOY / "systemd" / unit).read_text()


@pytest.mark.parametrize("service", ["gateway-1", "gateway-2"])
def test_compose_waits_for_the_drain(service: str) -> None:
    assert COMPOSE["services"][service]["stop_grace_period"] == f"{GRACE_SECONDS:g}s"


def test_kubernetes_waits_for_the_drain_and_before_it_for_its_proxies() -> None:
    [container] = pod()["containers"]
    before = math.ceil(DRAIN.delay_seconds)

    assert container["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(before)]
    assert pod()["terminationGracePeriodSeconds"] == before + GRACE_SECONDS


# Kubernetes


def test_the_rendered_manifests_are_those_of_the_chart() -> None:
    assert RENDERED.read_text().splitlines()[0] == f"# chart {digest()}", (
        "render them anew, with helm: python -m tests.unit.deploy.chart"
    )


@pytest.mark.parametrize("file", [RENDERED, *sorted((DEPLOY / "kubernetes").glob("ingress*.yaml"))])
def test_manifests_are_what_kubernetes_takes(file: Path) -> None:
    for manifest in manifests(file.read_text()):
        if manifest["kind"] != "ServiceMonitor":  # of the Prometheus operator's own schema
            jsonschema.validate(manifest, SCHEMA | {"oneOf": [KINDS[manifest["kind"]]]})


def test_the_schema_refuses_what_kubernetes_does() -> None:
    wrong = copy.deepcopy(MANIFESTS["Deployment"])
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 30

    with pytest.raises(jsonschema.ValidationError, match="terminationGracePeriod"):
        jsonschema.validate(wrong, SCHEMA | {"oneOf": [KINDS["Deployment"]]})


def test_the_values_of_the_chart_are_those_of_its_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    jsonschema.validate(values, schema)
    assert values.keys() | {"global"} == schema["properties"].keys()
    refused: list[dict[str, Any]] = [
        {"replica": 1},
        {"networkPolicy": {"internalFrom": []}},
        {"config": {}},
    ]
    for wrong in refused:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values | wrong, schema)


def test_the_chart_is_of_this_version() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == gateway.__version__


def test_the_chart_gives_a_configuration_the_gateway_takes() -> None:
    config = load_config(environ=MANIFESTS["ConfigMap"]["data"]).config

    assert config.channels[0].pattern == "room:*"
    assert config.drain == DRAIN


def test_only_who_is_named_reaches_the_internal_listener() -> None:
    public, internal = MANIFESTS["NetworkPolicy"]["spec"]["ingress"]

    assert [port["port"] for port in public["ports"]] == ["public"]
    assert [port["port"] for port in internal["ports"]] == ["internal"]
    assert internal["from"] == [{"podSelector": {}}]
    [container] = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"public": 4000, "internal": 4001}
    assert [port["targetPort"] for port in MANIFESTS["Service"]["spec"]["ports"]] == ["public"]


def test_all_parts_of_the_chart_mean_the_same_pods() -> None:
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["Service"]["spec"]["selector"],
        MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        MANIFESTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    assert MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "gateway"
    [internal] = [
        m for m in manifests(RENDERED.read_text()) if m["metadata"]["name"] == "gateway-internal"
    ]
    monitor = MANIFESTS["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= internal["metadata"]["labels"].items()
    assert internal["metadata"]["labels"][monitor["jobLabel"]] == "gateway", "as the alerts say"
    assert monitor["endpoints"][0]["port"] == internal["spec"]["ports"][0]["name"]


def test_a_pod_has_no_more_rights_than_it_needs() -> None:
    [container] = pod()["containers"]

    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "cpu" not in container["resources"]["limits"], "throttled, all its clients stall"


# the image


def test_the_image_is_pinned_and_runs_as_a_number() -> None:
    for file in (ROOT / "Dockerfile", DEPLOY / "compose/backend.Dockerfile"):
        text = file.read_text()
        bases = re.findall(r"^(?:FROM|ARG BASE=)\s*(\S+?)(?: AS \w+)?$", text, re.MULTILINE)
        for base in set(bases) - {"${BASE}"}:
            assert re.search(r":\d", base), base
        users = re.findall(r"^USER (.+)$", text, re.MULTILINE)
        assert users == ["10001:10001"]
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert os.access(DEPLOY / "image/healthcheck", os.X_OK)


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    for dockerfile, ignore in (
        (ROOT / "Dockerfile", ROOT / ".dockerignore"),
        (DEPLOY / "compose/backend.Dockerfile", DEPLOY / "compose/backend.Dockerfile.dockerignore"),
    ):
        sent = re.findall(r"^!(.+)$", ignore.read_text(), re.MULTILINE)
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile.read_text(), re.MULTILINE):
            *sources, _ = (part for part in line.split() if not part.startswith("--"))
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(f"{source}/".startswith(f"{each}/") for each in sent), source


# compose


def test_compose_gives_a_configuration_the_gateway_takes() -> None:
    for service in ("gateway-1", "gateway-2"):
        environment = COMPOSE["services"][service]["environment"]
        config = load_config(environ={key: str(value) for key, value in environment.items()}).config
        assert [rule.pattern for rule in config.channels] == ["room:*"]
        assert config.history.replicas == sum(name[:5] == "nats-" for name in COMPOSE["services"])
        told = COMPOSE["services"]["backend"]["environment"]
        assert told["DEMO_API_KEY"] == config.api.keys[0].key
        assert told["DEMO_TOKEN_SECRET"] == config.auth.secrets[0]
        assert told["DEMO_WEBHOOK_SECRET"] == config.upstream.secrets[0]


def test_compose_tells_the_backend_all_it_asks_for() -> None:
    wanted = {f"DEMO_{field.name.upper()}" for field in dataclasses.fields(Settings)}

    assert wanted <= COMPOSE["services"]["backend"]["environment"].keys()


def test_compose_publishes_on_this_machine_and_no_internal_listener() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
            assert not port.endswith(":4001"), name
        assert "ports" not in service or not name.startswith(("gateway-", "nats-"))


def test_compose_pins_its_images_and_mounts_what_there_is() -> None:
    for name, service in COMPOSE["services"].items():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+", service["image"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            exists = (
                (DEPLOY / source).exists() if source[0] == "." else source in COMPOSE["volumes"]
            )
            assert exists, source


def test_compose_has_the_hosts_that_its_files_name() -> None:
    names = set(COMPOSE["services"])
    for service in COMPOSE["services"].values():
        if isinstance(service["networks"], dict):
            names |= set(service["networks"]["inside"].get("aliases", ()))
    texts = [
        *COMPOSE["services"]["gateway-1"]["environment"].values(),
        *COMPOSE["services"]["backend"]["environment"].values(),
        (DEPLOY / "nginx/nginx.conf").read_text(),
        (DEPLOY / "prometheus/prometheus.yml").read_text(),
        (DEPLOY / "compose/nats.conf").read_text(),
        (DEPLOY / "compose/grafana-datasource.yaml").read_text(),
    ]
    hosts = {
        host
        for text in texts
        for host in re.findall(r"([a-z][a-z0-9-]*):(?:4000|4001|4222|6222|4080|9090)\b", str(text))
    }
    assert hosts - {"localhost"} <= names
    assert {"gateway-1", "gateway-2", "nats-3", "backend", "prometheus"} <= hosts


def test_compose_believes_nginx_about_its_clients() -> None:
    address = COMPOSE["services"]["nginx"]["networks"]["inside"]["ipv4_address"]
    environment = COMPOSE["services"]["gateway-1"]["environment"]

    assert json.loads(environment["GATEWAY_SERVER__TRUSTED_PROXIES"]) == [f"{address}/32"]


# systemd


@pytest.mark.parametrize("unit", ["gateway.service", "gateway@.service"])
def test_a_unit_starts_the_gateway_with_keys_that_there_are(unit: str) -> None:
    text = (DEPLOY / "systemd" / unit).read_text().replace("\\\n", " ")
    [line] = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    words = shlex.split(line.replace("%i", "3").replace("%H", "host"))
    assignments = [after for word, after in pairwise(words) if word == "--set"]

    server = load_config(environ={}, assignments=assignments).config.server

    assert words[:2] == ["/opt/gateway/bin/gateway", "serve"]
    if "@" in unit:
        assert (server.reuse_port, server.internal, server.replica) == (
            True,
            "127.0.0.1:4003",
            "host-3",
        )


def test_the_units_differ_in_what_makes_one_of_several() -> None:
    one, several = (
        [line for line in (DEPLOY / "systemd" / name).read_text().splitlines() if "=" in line]
        for name in ("gateway.service", "gateway@.service")
    )
    differing = {line.split("=")[0].strip() for line in {*one} ^ {*several}}

    assert differing == {"Description", "ExecStart", "--set server.reuse_port"}


# proxies

IDLE: Final = LimitsSettings().idle_timeout_seconds
HEADER: Final = LimitsSettings().max_header_bytes

READ_TIME_OUTS: Final = {
    "nginx/nginx.conf": (r"proxy_(?:read|send)_timeout (\d+)s", 2),
    "haproxy/haproxy.cfg": (r"timeout (?:client|server|tunnel) (\d+)s", 3),
    "traefik/traefik.yaml": (r"(?:read|idle)Timeout: (\d+)s", 2),
    "kubernetes/ingress-nginx.yaml": (r'proxy-(?:read|send)-timeout: "(\d+)"', 2),
    "kubernetes/ingress-haproxy.yaml": (r"timeout (?:server|tunnel) (\d+)s", 2),
    "kubernetes/ingress-traefik.yaml": (r"readTimeout=(\d+)s", 1),
}


@pytest.mark.parametrize("recipe", READ_TIME_OUTS)
def test_no_proxy_closes_a_socket_before_the_gateway_does(recipe: str) -> None:
    pattern, count = READ_TIME_OUTS[recipe]
    text = (DEPLOY / recipe).read_text()
    seconds = [int(found) for found in re.findall(pattern, text)]

    assert len(seconds) == count
    assert min(seconds) > IDLE
    assert f"limits.idle_timeout_seconds ({IDLE:g})" in text


def test_proxies_have_room_for_the_longest_header() -> None:
    assert (
        f"large_client_header_buffers 4 {HEADER // 1024}k;"
        in (DEPLOY / "nginx/nginx.conf").read_text()
    )
    [size] = re.findall(r"tune.bufsize (\d+)", (DEPLOY / "haproxy/haproxy.cfg").read_text())
    assert int(size) > HEADER


PUBLIC = {"/socket": "Prefix"} | {f"/{name}": "Exact" for name in live.NAMES}
"""What clients ask the gateway for, and how proxies match it."""


@pytest.mark.parametrize("file", sorted((DEPLOY / "traefik").iterdir()), ids=lambda path: path.name)
def test_the_files_of_traefik_are_yaml_with_what_they_refer_to(file: Path) -> None:
    value = yaml.safe_load(file.read_text())
    if file.name == "dynamic.yaml":
        http = value["http"]
        for router in http["routers"].values():
            assert router["service"] in http["services"]
            assert set(re.findall(r"`(.+?)`", router["rule"])) == {
                f"{path}/" if kind == "Prefix" else path for path, kind in PUBLIC.items()
            }
            assert set(router["middlewares"]) <= http["middlewares"].keys()
            static = yaml.safe_load((DEPLOY / "traefik/traefik.yaml").read_text())
            assert set(router["entryPoints"]) <= static["entryPoints"].keys()


@pytest.mark.parametrize(
    "file", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name
)
def test_routes_lead_to_the_public_port_of_the_chart(file: Path) -> None:
    service = MANIFESTS["Service"]["spec"]["ports"][0]
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest.get("kind") == "Ingress":
            [rule] = manifest["spec"]["rules"]
            assert {path["path"]: path["pathType"] for path in rule["http"]["paths"]} == PUBLIC
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"] == {
                    "name": "gateway",
                    "port": {"name": service["name"]},
                }
        elif manifest.get("kind") == "HTTPRoute":
            [rule] = manifest["spec"]["rules"]
            paths = [match["path"] for match in rule["matches"]]
            kinds = {path["value"]: path["type"].removeprefix("Path") for path in paths}
            assert kinds == PUBLIC
            assert rule["backendRefs"] == [{"name": "gateway", "port": service["port"]}]
