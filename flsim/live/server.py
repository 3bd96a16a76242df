"""The page of `flsim watch`: a small server of a few fixed addresses, which are read and never written.

A name that stands in an address is looked up among the runs that were found, and is never made into a path. Other
sites cannot ask in a visitor's name: the `Host` of a request must be this machine (against DNS rebinding), and no other
site may embed or read what is sent.
"""

import os
import platform
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.resources import files

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flsim.charts.pieces import STYLE as CHART_STYLE
from flsim.charts.pieces import library_text, script_text
from flsim.live.following import Following
from flsim.live.pages import as_json, index_data, run_data
from flsim.report.html import STYLE

_OWN = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
_OWN += "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OF_A_REPORT = "sandbox allow-scripts allow-modals; default-src 'none'; script-src 'unsafe-inline'; "
_OF_A_REPORT += "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, and asked for anew with its ETag each time
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HTML, _JSON = "text/html; charset=utf-8", "application/json"
_NICE = 5  # how far this process stands back behind the runs that it follows


def app_of(following: Following, names: Sequence[str], *, every_s: float = 2.0, budget_s: float = 1.0) -> Starlette:
    """The application.

    Args:
        following: the runs.
        names: by which the machine may be asked for, in `Host` without a port.
        every_s: seconds after which a page asks again.
        budget_s: seconds that a list may take to compute summaries; the next one goes on.
    """

    def runs(request: Request) -> Response:
        return _sent(
            request,
            as_json(index_data(following.root, following.entries(budget_s if following.has_looked else 0.0))),
            _JSON,
        )

    def run(request: Request) -> Response:
        shown = following.show(request.query_params.get("name", ""))
        if shown is None:
            return Response("there is no such run any more", 404, _HEADERS, "text/plain")
        return _sent(request, as_json(run_data(following.root, shown)), _JSON)

    def report(request: Request) -> Response:
        page = following.report(request.query_params.get("name", ""))
        try:
            data = None if page is None else page.read_bytes()
        except OSError:
            data = None
        if data is None:
            return Response("this run has no report yet", 404, _HEADERS, "text/plain")
        return _sent(request, data, _HTML, _OF_A_REPORT)

    page = _file("page.html").replace("EVERY_MS", str(round(1000 * every_s)))
    texts = {
        "/": (page, _HTML),
        "/run": (page, _HTML),
        "/page.js": (_file("page.js"), "text/javascript"),
        "/page.css": (STYLE + CHART_STYLE + _file("page.css"), "text/css"),
        "/chart.js": (library_text(), "text/javascript"),
        "/flsim-charts.js": (script_text(), "text/javascript"),
    }
    routes = [Route(path, _fixed(text.encode(), kind), methods=["GET"]) for path, (text, kind) in texts.items()]
    routes += [Route(f"/{one.__name__}.json", one, methods=["GET"]) for one in (runs, run)]
    routes.append(Route("/report", report, methods=["GET"]))
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)],
    )


def names_of(host: str) -> list[str]:
    """What the `Host` of a request may say, where the server listens at an address.

    Args:
        host: the address; one that stands for all of this machine's, such as `0.0.0.0`, allows each of these.
    """
    names = {"localhost", "127.0.0.1", host}
    if host in ("0.0.0.0", "::", ""):
        own = (one.address for all_of_one in psutil.net_if_addrs().values() for one in all_of_one)
        names |= {address for address in own if address.count(".") == 3} | {platform.node()}
    if ":" in host:
        names.add("[")  # what is left of [::1]:8642 before its first colon; no name of a site begins so
    return sorted(names - {"0.0.0.0", "::", ""})


def serve(following: Following, listening: socket.socket, names: Sequence[str], every_s: float) -> None:
    """Serve until a signal ends it, which is raised again at the end.

    Args:
        following: the runs.
        listening: where to.
        names: by which the machine may be asked for.
        every_s: seconds after which a page asks again.
    """
    with suppress(OSError, AttributeError):
        os.nice(_NICE)
    config = uvicorn.Config(
        app_of(following, names, every_s=every_s),
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _fixed(data: bytes, kind: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return _sent(request, data, kind)

    return answer


def _sent(request: Request, data: bytes, kind: str, policy: str = _OWN) -> Response:
    """The data, or nothing but 304 if whoever asks has them already."""
    tag = f'"{sha256(data).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag, "Content-Security-Policy": policy}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return Response(None, 304, headers) if tag in known else Response(data, 200, headers, kind)


def _file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")
