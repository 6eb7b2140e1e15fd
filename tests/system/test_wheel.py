"""What `make wheel` builds runs without the repository."""

import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

import gateway as package
from tests.support.ports import free_port

ROOT = Path(package.__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder the wheel was installed to; what it depends on is taken from where the tests run."""
    build, site = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, build)
    shutil.copytree(
        ROOT / "gateway", build / "gateway", ignore=shutil.ignore_patterns("__pycache__")
    )
    arguments = ("--no-deps", "--no-build-isolation", "--wheel-dir", "dist", ".")
    subprocess.run([*PIP, "wheel", *arguments], cwd=build, check=True)
    [wheel] = (build / "dist").glob("*.whl")
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True)
    kept = {path.relative_to(build) for path in (build / "gateway").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name) for name in archive.namelist() if name.startswith("gateway/")}
    assert packed == kept, "pages and scripts, too"
    return site


def environment(installed: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_a_wheel_serves_with_its_pages_outside_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    public, internal = free_port(), free_port()
    command = (
        installed / "bin" / "gateway", "serve", "--dev",
        "--set", f"server.public=127.0.0.1:{public}",
        "--set", f"server.internal=127.0.0.1:{internal}",
    )  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(installed), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said = [""]
            while "serving" not in said[-1]:
                said.append(process.stderr.readline())
                assert said[-1], said
            for address, words in {
                f"http://127.0.0.1:{public}/": "<script",
                f"http://127.0.0.1:{public}/live.js": "data-live",
                f"http://127.0.0.1:{internal}/docs": "/v1/publish",
                f"http://127.0.0.1:{internal}/openapi.json": '"openapi"',
                f"http://127.0.0.1:{internal}/asyncapi.json": '"asyncapi"',
            }.items():
                with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310 -- always http
                    assert words in response.read().decode(), address
            process.terminate()
            process.communicate(timeout=30)
        finally:
            process.kill()

    assert process.returncode == 0


def test_the_installed_command_tells_its_version_and_where_it_is(
    installed: Path, tmp_path: Path
) -> None:
    def run(*arguments: str | Path) -> str:
        return subprocess.run(
            arguments, cwd=tmp_path, env=environment(installed), capture_output=True, text=True,
            check=True,
        ).stdout.strip()  # fmt: skip

    where = run(sys.executable, "-c", "import gateway; print(gateway.__file__)")
    assert where == str(installed / "gateway" / "__init__.py")
    assert run(installed / "bin" / "gateway", "version") == package.__version__
