"""``make matrix``: plays all clients this machine can build, and renews the results and the page.

``--only NAME`` plays those whose names contain this, and renews what is said of them.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.matrix.clients import CLIENTS
from tests.matrix.page import failures, record
from tests.matrix.playing import OPTIONAL, missing, play

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--only", default="")
only = parser.parse_args().only

clients = []
for client in CLIENTS:
    if only not in client.name:
        continue
    if (tool := missing(client)) is None:
        clients.append(client)
    elif os.environ.get("CI") and tool not in OPTIONAL:
        sys.exit(f"{tool} is missing, for {client.name}")
    else:
        print(f"skipped: {client.name}, as {tool} is missing")
with tempfile.TemporaryDirectory() as folder:
    results = asyncio.run(play(clients, Path(folder)))
failed = failures(results)
if not failed:
    record(results)
print("\n\n".join(failed) or f"all of {len(clients)} clients do what docs/clients.md says")
sys.exit(bool(failed))
