"""``gateway watch``: a topic's messages as they come, one JSON object a line."""

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from gateway.cli.options import (
    Assignments,
    ConfigFile,
    Dev,
    Failure,
    network_words,
    read_config,
    write,
)
from gateway.cli.token import sign
from gateway.config.address import reachable

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS: Final = 10.0
LONGEST_HEARTBEAT_SECONDS: Final = 30.0

_REF: Final = "1"
_BROADCAST: Final = 2  # kind of a server's binary frame
_HEADER_BYTES: Final = 3  # kind, then the lengths of topic and event


class _Frame(msgspec.Struct, array_like=True):
    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: msgspec.Raw


class _Reply(msgspec.Struct):
    status: str
    response: dict[str, object] = {}


def watch(
    topic: Annotated[str, typer.Argument(help="What to listen to, such as room:42.")],
    *,
    user: Annotated[str, typer.Option(help="As whom to join.")] = "gateway-watch",
    count: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The public listener, ws://host:4000; else from the configuration."),
    ] = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Join a topic and print its messages until Ctrl-C."""
    settings = read_config(config, dev, assignments).config
    scheme = "wss" if settings.server.tls_certificate else "ws"
    base = (url or f"{scheme}://{reachable(settings.server.public)}").rstrip("/")
    token = (
        None
        if settings.auth.allow_anonymous and not settings.auth.secrets
        else sign(settings, user, settings.auth.max_token_seconds)
    )
    heartbeat = min(LONGEST_HEARTBEAT_SECONDS, settings.limits.idle_timeout_seconds / 3)
    try:
        asyncio.run(_watch(f"{base}/socket/websocket", topic, token, count, heartbeat))
    except KeyboardInterrupt:
        return  # how a tail ends


async def _watch(
    url: str, topic: str, token: str | None, count: int | None, heartbeat: float
) -> None:
    import aiohttp  # noqa: PLC0415 -- as in gateway.cli.client

    # in a header, since addresses end up in the logs of proxies
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.ws_connect(
                f"{url}?vsn=2.0.0",
                heartbeat=heartbeat,  # so that it is not idle, and notices a gateway that is gone
                timeout=aiohttp.ClientWSTimeout(ws_close=1),
                max_msg_size=0,
            ) as socket,
        ):
            await socket.send_str(msgspec.json.encode([_REF, _REF, topic, "phx_join", {}]).decode())
            await _print_messages(socket, topic, count)
    except aiohttp.WSServerHandshakeError as problem:
        raise Failure(f"{url}: refused with HTTP {problem.status}") from None
    except aiohttp.InvalidURL:
        raise typer.BadParameter("must be like ws://host:4000", param_hint="--url") from None
    except aiohttp.ClientError as problem:
        raise Failure(f"{url}: {network_words(problem)}") from None


async def _print_messages(
    socket: "aiohttp.ClientWebSocketResponse", topic: str, count: int | None
) -> None:
    """Print until ``count`` messages came; for ever without it."""
    left = count
    while left is None or left > 0:
        message = await socket.receive()
        if isinstance(message.data, str):
            line = _read_text(message.data, topic)
        elif isinstance(message.data, bytes):
            line = _read_binary(message.data)
        else:
            raise Failure(f"the connection was closed, code {socket.close_code}")
        if line is not None:
            write(line)
            left = None if left is None else left - 1


def _read_text(text: str, topic: str) -> bytes | None:
    """The line for a text frame; None when it is no message of the topic."""
    frame = msgspec.json.decode(text, type=_Frame)
    if frame.event == "phx_reply":
        reply = msgspec.json.decode(frame.payload, type=_Reply)
        if reply.status != "ok":
            raise Failure(f'topic "{topic}" cannot be joined: {reply.response.get("reason")}')
        return None
    if frame.event in ("phx_close", "phx_error"):
        raise Failure(f'the channel of topic "{topic}" was closed')
    return msgspec.json.encode(
        {"topic": frame.topic, "event": frame.event, "payload": frame.payload}
    )


def _read_binary(data: bytes) -> bytes | None:
    """The line for a binary frame, with the payload in base64."""
    if data[0] != _BROADCAST:
        return None
    topic_end = _HEADER_BYTES + data[1]
    event_end = topic_end + data[2]
    return msgspec.json.encode(
        {
            "topic": data[_HEADER_BYTES:topic_end].decode(),
            "event": data[topic_end:event_end].decode(),
            "base64": base64.b64encode(data[event_end:]).decode(),
        }
    )
