"""The Helm chart, and what it renders to with everything switched on.

``helm`` is not on every machine, so the rendered manifests are kept beside the tests, with the chart's hash:
``python -m tests.unit.deploy.chart`` renders them anew.
"""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).parents[3] / "deploy/helm/gateway"
RENDERED: Final = Path(__file__).with_name("rendered.yaml")
EVERYTHING: Final = ("autoscaling.enabled=true", "serviceMonitor.enabled=true")
KUBERNETES: Final = "1.37.0"


def digest() -> str:
    """Of all files of the chart, comments and the notes for people included."""
    files = sorted(path for path in CHART.rglob("*") if path.is_file())
    parts = [str(path.relative_to(CHART)).encode() + b"\0" + path.read_bytes() for path in files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def render(*settings: str, helm: str = "helm") -> str:
    """The manifests.

    Args:
        settings: ``key=JSON`` each.

    Raises:
        subprocess.CalledProcessError: Helm or the chart's schema refuses.
    """
    command = [helm, "template", "gateway", str(CHART), "--kube-version", KUBERNETES]
    command += [part for setting in settings for part in ("--set-json", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def manifests(text: str) -> Iterator[dict[str, Any]]:
    """Each of them."""
    yield from (each for each in yaml.safe_load_all(text) if each)


if __name__ == "__main__":
    RENDERED.write_text(f"# chart {digest()}\n{render(*EVERYTHING)}")
