"""The documents keep up with the code."""

import re
from pathlib import Path

import pytest

import gateway
from gateway.api import body as api
from gateway.app.fetch import MAX_BYTES, TIMEOUT_SECONDS
from gateway.auth.claims import MAX_ID_CHARACTERS, MAX_TOPICS
from gateway.auth.jwk import MAX_KEYS
from gateway.auth.jwks import KEEP_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, UNKNOWN_KEY_SECONDS
from gateway.auth.jws import MAX_TOKEN_BYTES
from gateway.auth.keys import RSA_BITS
from gateway.auth.refusal import TokenRefusal
from gateway.channels.callback_queue import MAX_WAITING, MAX_WAITING_BYTES
from gateway.config import LimitsSettings
from gateway.config.sections import PresenceSettings, UpstreamSettings
from gateway.device import MAX_CHARACTERS
from gateway.history.position import MAX_LENGTH as POSITION_LENGTH
from gateway.protocol.channel import MAX_HELD_BYTES
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.reserved import MAX_NAME_BYTES, MAX_REF_BYTES
from gateway.transport.handshake import MAX_TRACEPARENT, MAX_USER_AGENT
from gateway.transport.longpoll import requests as longpoll
from tests.unit.test_documented import exported

ROOT = Path(__file__).parents[2]
AUTHENTICATION = (ROOT / "docs/authentication.md").read_text()
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def rows(text: str) -> set[str]:
    """First cells of all table rows that are code."""
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize(("heading", "kind"), [("Reasons", Reason), ("Close codes", CloseCode)])
def test_reasons_and_close_codes_are_explained_as_in_the_code(
    heading: str, kind: type[Reason] | type[CloseCode]
) -> None:
    section = PROTOCOL.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    told = re.findall(r"^\| `?([^|`]+)`? \| ([^|]+) \|", section, re.MULTILINE)

    assert set(told) - {("reason", "when"), ("code", "when")} == {
        (str(each.value), each.when) for each in kind
    }


def test_every_refusal_is_explained() -> None:
    section = AUTHENTICATION.split("## Refusals")[1].split("\n## ")[0]

    assert rows(section) == {refusal.value for refusal in TokenRefusal}


def test_the_limits_of_tokens_are_those_of_the_code() -> None:
    assert f"at most {MAX_TOKEN_BYTES} bytes" in AUTHENTICATION
    assert f"more than {MAX_TOKEN_BYTES} bytes" in AUTHENTICATION
    assert f"up to {MAX_ID_CHARACTERS} characters" in AUTHENTICATION
    assert f"up to {MAX_TOPICS} patterns" in AUTHENTICATION
    assert f"{RSA_BITS[0]} to {RSA_BITS[-1]} bits" in AUTHENTICATION
    assert f"{MAX_KEYS} keys are taken" in AUTHENTICATION
    assert f"every {REFRESH_SECONDS / 60:g} minutes, {RETRY_SECONDS:g} seconds" in AUTHENTICATION
    assert f"one such fetch in {UNKNOWN_KEY_SECONDS:g} seconds" in AUTHENTICATION
    assert f"for {KEEP_SECONDS / 3600:g} hours" in AUTHENTICATION
    assert f"{TIMEOUT_SECONDS:g} seconds and {MAX_BYTES // 1024} KiB" in AUTHENTICATION


def test_what_a_client_can_hold_is_what_the_code_lets_it() -> None:
    section = OPERATIONS.split("## What a client can hold")[1].split("\n## ")[0]
    limits, kib, mib = LimitsSettings(), 2**10, 2**20
    for said in (
        f"topic and event of {MAX_NAME_BYTES} bytes, refs of {MAX_REF_BYTES}",
        f"a position of {POSITION_LENGTH}",
        f"wait for joins | {MAX_HELD_BYTES // kib} KiB",
        f"wait for the backend | {MAX_WAITING}, with {MAX_WAITING_BYTES // kib} KiB",
        f"a token of {MAX_TOKEN_BYTES} bytes; three device fields of {MAX_CHARACTERS} characters",
        f"{MAX_USER_AGENT} of its User-Agent; {MAX_TRACEPARENT} of its",
        f"in bytes under way | {longpoll.MAX_USER_BYTES // mib} MiB",
        f"| {longpoll.MAX_TOTAL_BYTES // mib} MiB for sessions of this replica",
        f"and {longpoll.MAX_TOTAL_BYTES // mib} MiB for those of others",
        f"{api.MAX_TOTAL_BYTES // mib} MiB, {api.MAX_BODY_BYTES // mib} MiB each",
        f"{api.BODY_SECONDS:g} seconds to come",
    ):
        assert said in section
    channel = 4 * kib + PresenceSettings().max_meta_bytes
    socket = (
        2 * limits.max_message_bytes
        + 256 * kib
        + limits.outbound_buffer_bytes
        + limits.max_channels_per_socket * channel
        + MAX_HELD_BYTES
        + MAX_WAITING_BYTES
        + UpstreamSettings().max_state_bytes
        + MAX_TOKEN_BYTES
        + 3 * MAX_CHARACTERS
        + MAX_USER_AGENT
        + MAX_TRACEPARENT
    )
    assert section.count(f"{socket / mib:.1f} MiB") == 2, f"{socket / mib:.1f}"


def test_every_metric_is_explained_with_its_labels() -> None:
    section = OPERATIONS.split("## Metrics")[1]
    documented = {
        name: set(re.findall(r"`([a-z_]+)`", labels))
        for name, labels in re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|", section, re.MULTILINE)
    }

    assert documented == exported()


def test_the_changelog_knows_this_version_or_what_comes() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert "## Unreleased" in changelog or f"## {gateway.__version__}" in changelog


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_tests_that_the_threat_model_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/threat-model.md").read_text())
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text()
    ]

    assert len(named) > 30
    assert missing == []


def test_the_guide_for_contributors_names_every_folder() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    folders = [
        f"`{top}/{path.name}/`"
        for top in ("gateway", "tests")
        for path in sorted((ROOT / top).iterdir())
        if path.is_dir() and path.name != "__pycache__"
    ]

    assert [folder for folder in folders if folder not in guide] == []


@pytest.mark.parametrize("document", [ROOT / "ARCHITECTURE.md"])
def test_modules_named_in_the_architecture_exist(document: Path) -> None:
    for name in re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*\.py)`", document.read_text()):
        assert (ROOT / "gateway" / name).exists() or (ROOT / name).exists(), name
