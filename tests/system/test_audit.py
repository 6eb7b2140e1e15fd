"""The audit of dependencies fails for what is known, and says plainly when nothing could be asked."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).parents[2] / ".ci/audit"

GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}


def audited(tool: Path, code: int, report: Any) -> "subprocess.CompletedProcess[str]":
    """Run it with something in place of pip-audit, that ends with a code and may write a report."""
    said = f"cat > $file <<'END'\n{json.dumps(report)}\nEND\n" if report else ""
    tool.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ $1 = --output ] && file=$2; shift; done\n"
        f"{said}exit {code}\n"
    )
    tool.chmod(0o755)
    environment = os.environ | {"PIP_AUDIT": str(tool)}
    return subprocess.run([AUDIT], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("code", "report", "ends_with", "says"),
    [
        (0, {"dependencies": [GOOD]}, 0, "no known vulnerability in 1 packages"),
        (1, {"dependencies": [GOOD, BAD]}, 1, "bad 2.0 PYSEC-1 fixed in 2.1"),
        (1, None, 0, "NOT DONE"),
        (2, None, 0, "NOT DONE"),
    ],
)
def test_an_audit(tmp_path: Path, code: int, report: Any, ends_with: int, says: str) -> None:
    done = audited(tmp_path / "pip-audit", code, report)

    assert says in done.stdout + done.stderr
    assert done.returncode == ends_with
