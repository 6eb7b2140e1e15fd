"""The recipe of docs/resume.md with the phoenix packages as published, as a function, and as TypeScript."""

import json
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from gateway import __version__
from gateway.history.resume import Loss
from tests.clients.member import Member
from tests.clients.npm import DIRECTORY
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token

ROOM = "room:1"
CHANNELS = [{"pattern": "room:*", "push": "broadcast", "history": {"messages": 5, "seconds": 300}}]
PACKAGES = ["phoenix-1.6", "phoenix-1.7", "phoenix-1.8"]
HELPER = Path(__file__).parents[2] / "clients/js"
GUIDE = (Path(__file__).parents[2] / "docs/resume.md").read_text()


@pytest.fixture
def gateway(start_gateway: StartGateway, start_nats: StartNats) -> GatewayProcess:
    """A gateway that keeps history on a real nats-server."""
    return start_gateway({"channels": CHANNELS, "bus": {"url": start_nats().url}})


@pytest.fixture(params=[(p, how) for p in PACKAGES for how in ("recipe", "V1", "helper")], ids=str)
async def client(
    request: pytest.FixtureRequest,
    node: str,
    npm_packages: Path,  # noqa: ARG001 -- the driver finds them beside it
    gateway: GatewayProcess,
) -> AsyncIterator[Member]:
    """A client of each release that follows the recipe, in each version, or has the function do so."""
    package, how = request.param
    scenario = "helped" if how == "helper" else "resumer"
    member = await Member.start(
        node, package, gateway, ROOM, scenario=scenario, params={"token": token()}, v1=how == "V1"
    )
    yield member
    await member.end()


async def publish(gateway: GatewayProcess, *numbers: int) -> None:
    """Publish numbers."""
    async with Backend(gateway) as backend:
        for number in numbers:
            assert await backend.publish(ROOM, "n", {"n": number}) == 202


async def heard(client: Member, last: int) -> list[int]:
    """All numbers up to this one, in the order they came."""
    await client.until(lambda: bool(client.all("n", n=last)))
    return [report["n"] for report in client.all("n")]


async def test_an_unmodified_client_misses_nothing(client: Member, gateway: GatewayProcess) -> None:
    assert (await client.expect("joined"))["response"]["recovered"] is None
    await publish(gateway, 1, 2)
    await heard(client, 2)
    await client.tell("away")
    await client.expect("away")
    await publish(gateway, 3, 4, 5)
    await client.tell("back")
    assert (await client.expect("joined", 2))["response"]["recovered"] is True
    assert await heard(client, 5) == [1, 2, 3, 4, 5]
    await client.tell("cut")
    await publish(gateway, 6)
    assert (await client.expect("joined", 3))["response"]["recovered"] is True
    assert await heard(client, 6) == [1, 2, 3, 4, 5, 6]


async def test_an_unmodified_client_is_told_what_it_cannot_have(
    client: Member, gateway: GatewayProcess, request: pytest.FixtureRequest
) -> None:
    await client.expect("joined")
    await publish(gateway, 1)
    await heard(client, 1)
    await client.tell("away")
    await client.expect("away")
    await publish(gateway, *range(2, 8))
    await client.tell("back")
    answer = (await client.expect("joined", 2))["response"]
    assert (answer["recovered"], answer["reason"]) == (False, "too_many")
    if "helper" in request.node.name:
        assert (await client.expect("lost"))["reason"] == "too_many"
    await publish(gateway, 8)
    assert await heard(client, 8) == [1, 8]


def test_the_recipe_in_the_guide_is_what_was_tested() -> None:
    [recipe] = re.findall(r"```js\n(let last.*?)```", GUIDE, re.DOTALL)
    driver = (DIRECTORY / "driver.mjs").read_text()
    for line in ("({ resume: last })", 'typeof ref === "string" && ref[0] === "@"'):
        assert line in recipe
        assert line in driver


def test_the_recipe_and_the_function_compile_as_typescript(
    node: str, npm_packages: Path, tmp_path: Path
) -> None:
    recipes = re.findall(r"```ts\n(.*?)```", GUIDE, re.DOTALL)
    assert len(recipes) == 2
    files = [tmp_path / f"recipe{number}.ts" for number, _ in enumerate(recipes)]
    for file, recipe in zip(files, recipes, strict=True):
        file.write_text(
            "import { Socket } from 'phoenix'\n"
            "interface Message { body: string }\n"
            "declare const socket: Socket\n"
            "declare function show(message: Message): void\n"
            "declare function reload(): void\n"
            f"{recipe}\nexport {{}}\n"
        )
    compiler = npm_packages / "typescript/bin/tsc"
    command = [
        *(node, str(compiler), "--noEmit", "--strict", "--target", "es2022", "--module", "esnext"),
        *("--moduleResolution", "bundler", "--lib", "es2022,dom", "--preserveSymlinks"),
        *map(str, files),
    ]
    (tmp_path / "node_modules/@types").mkdir(parents=True)
    (tmp_path / "node_modules/@types/phoenix").symlink_to(npm_packages / "@types/phoenix")
    (tmp_path / "node_modules/gateway-resume").symlink_to(HELPER)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_function_has_the_reasons_of_the_code() -> None:
    [told] = re.findall(r"type Lost = (.*);", (HELPER / "resume.d.ts").read_text())

    assert set(re.findall(r'"(\w+)"', told)) == set(get_args(Loss))


def test_the_packed_function_is_whole(npm_packages: Path) -> None:  # noqa: ARG001 -- npm is there
    done = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"], cwd=HELPER, capture_output=True, check=True
    )
    [package] = json.loads(done.stdout)

    assert package["version"] == __version__
    assert {file["path"] for file in package["files"]} == {
        *("README.md", "package.json", "resume.d.ts", "resume.js"),
    }
