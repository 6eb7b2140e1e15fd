"""Lets a request to the console pass: who is signed in, with which scope, from which page; and the audit log.

A browser sends the cookie with a request of any page of the same host, whatever its port: ``SameSite`` says
nothing against it. So an Origin that is not the console's own ends every request, a form and a socket must
have one, and a form must carry the token that only the console's own pages know.
"""

import asyncio
import hmac
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp_jinja2
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.body import BODY_SECONDS
from gateway.api.problem import Refusal, log_failure
from gateway.config.fields import Scope
from gateway.console.sign_in import COOKIE, SignIn, SignIns

SIGN_IN: Final = web.RequestKey("sign_in", SignIn)
FORM: Final = web.RequestKey("form", Mapping[str, str])

TOKEN_FIELD: Final = "form_token"  # noqa: S105 -- names a field

FORM_ROOM_BYTES: Final = 4096
"""Of a form, beside three bytes for each of a payload's, which is how a browser may encode it.

It is all that somebody who is not signed in may send.
"""

LONGEST_LOGGED: Final = 255
"""Characters of a text in the audit log, as many as a name may have; what was made up is cut off."""

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",  # a stricter one would have forms sent with Origin: null
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

REFUSED: Final = "refused"
"""Action of a line that says what somebody was not let do."""

_FORM_TYPE: Final = "application/x-www-form-urlencoded"

_log = structlog.get_logger(__name__)


class Turned(Exception):
    """A request is refused.

    Attributes:
        reason: For the log; one of few.
        text: For whoever sent it.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.text = text


class Guard:
    """Checks requests.

    Args:
        needed: By handler the scope it needs; None where any key will do. Handlers that are not named need
            no sign-in.
        max_payload_bytes: Of a message that a form publishes.
    """

    def __init__(
        self,
        sign_ins: SignIns,
        needed: Mapping[Handler, Scope | None],
        *,
        max_payload_bytes: int,
    ) -> None:
        self._sign_ins = sign_ins
        self._needed = needed
        self._max_signed_in_bytes = 3 * max_payload_bytes + FORM_ROOM_BYTES

    def middleware(self) -> Middleware:
        """The middleware: outermost, so that every answer is a page with the headers of one."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                response = await self._pass(request, handler)
            except Turned as turned:
                audit(request, REFUSED, turned.reason, status=turned.status)
                response = _refusal(request, turned.status, turned.text)
            except Refusal as refused:
                response = _refusal(request, refused.problem.status, refused.problem.detail)
            except web.HTTPException as error:
                if error.status < HTTPStatus.BAD_REQUEST:
                    error.headers.update(HEADERS)
                    raise
                response = _refusal(request, error.status, HTTPStatus(error.status).description)
            except Exception as error:  # noqa: BLE001 -- its answer is to be a page with the headers, too
                log_failure(request, error)
                response = _refusal(request, 500, "This page failed; the log says why.")
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guard

    async def _pass(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        changes = request.method != hdrs.METH_GET
        cookie = request.cookies.get(COOKIE)
        sign_in = None if cookie is None else self._sign_ins.read(cookie)
        if sign_in is not None:
            request[SIGN_IN] = sign_in
        _check_origin(request, required=changes or hdrs.UPGRADE in request.headers)
        target = request.match_info.handler
        guarded = target in self._needed
        if guarded and sign_in is None:
            if changes or hdrs.UPGRADE in request.headers:
                reason = "no sign-in" if cookie is None else "sign-in not valid"
                raise Turned(403, reason, "You are not signed in, or your sign-in has expired.")
            raise web.HTTPSeeOther("/console/sign-in")
        if changes:
            request[FORM] = await _form(
                request, self._max_signed_in_bytes if guarded else FORM_ROOM_BYTES
            )
            if sign_in is not None and guarded:
                shown = request[FORM].get(TOKEN_FIELD, "")
                if not hmac.compare_digest(shown.encode(), sign_in.form_token.encode()):
                    raise Turned(
                        403, "form token", "The form is not one of this console. Load it again."
                    )
        scope = self._needed.get(target)
        if scope is not None and sign_in is not None and scope not in sign_in.scopes:
            raise Turned(403, f"scope {scope}", f"Your API key lacks the scope {scope}.")
        return await handler(request)


async def _form(request: web.Request, most: int) -> Mapping[str, str]:
    """The fields of a form that may have so many bytes, in UTF-8 as browsers send those of our pages."""
    packed = hdrs.CONTENT_ENCODING in request.headers
    if request.content_type != _FORM_TYPE or packed:
        raise Turned(415, "form type", "Only forms are accepted here.")
    if request.content_length is None or request.content_length > most:
        raise Turned(413, "form size", f"A form may have {most} bytes.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.read()
    except TimeoutError:
        raise Turned(408, "form time", "The form took too long to arrive.") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Turned(400, "form cut off", "The form was cut off.") from None
    # aiohttp's own reader believes the request in what charset it is
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def audit(request: web.Request, action: str, outcome: str, **more: object) -> None:
    """One line of the log for what somebody did, or was refused: never a key, token or payload.

    Refusals of who is not signed in are held back if there are many: anybody may cause them.
    """
    sign_in = request.get(SIGN_IN)
    route = request.match_info.route.resource
    line = {
        "who": "" if sign_in is None else sign_in.name,
        "action": action,
        "outcome": outcome,
        "method": request.method,
        "route": "" if route is None else route.canonical,
        "ip": request.remote or "",
        **({} if sign_in is None else request.match_info),
        **more,
    }
    line = {
        name: value[:LONGEST_LOGGED] if isinstance(value, str) else value
        for name, value in line.items()
    }
    if action != REFUSED:
        _log.info("console action", **line)
    elif sign_in is None:
        _log.warning("console request refused", **line, throttle=outcome)
    else:
        _log.warning("console request refused", **line)


def _check_origin(request: web.Request, *, required: bool) -> None:
    """The page that sends a request must be the console's own.

    Raises:
        Turned: It is another, or a request that must name its page does not.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None and not required:
        return
    try:
        page = "" if origin is None else urlsplit(origin).netloc
    except ValueError:
        page = ""
    if not page or page.lower() != request.host.lower():
        raise Turned(403, "origin", "The request comes from a page that is not the console's.")


def page(request: web.Request, name: str, **context: Any) -> web.Response:  # noqa: ANN401 -- what templates are given
    """A page of the console.

    Args:
        name: Of its template.
    """
    told = {"page": name, "sign_in": request.get(SIGN_IN), **context}
    return aiohttp_jinja2.render_template(f"{name}.html", request, told)


def _refusal(request: web.Request, status: int, text: str) -> web.Response:
    response = page(request, "refused", text=text, title=HTTPStatus(status).phrase)
    response.set_status(status)
    return response
