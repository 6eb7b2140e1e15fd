"""The programs a gateway can be started from: the working tree's, and that of another commit."""

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[1]
_LOCKED: Final = "requirements/runtime.txt"


@dataclass(frozen=True)
class Build:
    """A gateway's program; it runs with this interpreter and the packages installed for it.

    Attributes:
        name: What tables call it.
        root: The directory that has its package ``gateway``.
    """

    name: str
    root: Path

    def environment(self) -> dict[str, str]:
        """What has the interpreter find it, when started with ``-P``."""
        return {"PYTHONPATH": str(self.root)}

    def prepare(self) -> None:
        """Compile it, and make sure that it is what runs.

        An interpreter that has to compile first begins with more memory, and grows by less.
        """
        subprocess.run(
            [sys.executable, "-m", "compileall", "-q", str(self.root / "gateway")], check=True
        )
        found = subprocess.run(
            [sys.executable, "-P", "-c", "import gateway; print(gateway.__file__)"],
            check=True,
            capture_output=True,
            text=True,
            env=self.environment(),
        ).stdout
        if Path(found.strip()).resolve().parents[1] != self.root.resolve():
            raise SystemExit(f"bench: {self.name} would run {found.strip()}")

    def deviations(self) -> list[str]:
        """Its locked packages that are installed in another version, or not at all."""
        found = []
        for line in (self.root / _LOCKED).read_text().splitlines():
            locked, _, condition = line.partition(";")
            package, pinned, version = locked.strip().partition("==")
            if not pinned or package.startswith("#") or "win32" in condition:
                continue
            try:
                installed = metadata.version(package)
            except metadata.PackageNotFoundError:
                installed = "none"
            if installed != version:
                found.append(f"{package} {installed} instead of {version}")
        return found


WORKING_TREE: Final = Build("working tree", _ROOT)


@contextmanager
def builds(beside: str | None) -> Iterator[Sequence[Build]]:
    """The builds of a run: the working tree's alone, or after that of another commit.

    Args:
        beside: The other commit, as git understands it.
    """
    if beside is None:
        WORKING_TREE.prepare()
        yield (WORKING_TREE,)
        return
    with tempfile.TemporaryDirectory(prefix="bench-build-") as directory:
        other = Build(_git("rev-parse", "--short", f"{beside}^{{commit}}"), Path(directory))
        archive = subprocess.run(
            ["git", "archive", other.name, "gateway", "requirements"],
            cwd=_ROOT,
            check=True,
            capture_output=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(directory, filter="data")
        found = (other, Build(_head(), _ROOT))
        for build in found:
            build.prepare()
            if deviations := build.deviations():
                print(f"{build.name} runs with {', '.join(deviations)}", file=sys.stderr)
        yield found


def _head() -> str:
    """The working tree's commit, with a plus where its gateway is changed."""
    changed = _git("status", "--porcelain", "gateway")
    return _git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"bench: git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()
