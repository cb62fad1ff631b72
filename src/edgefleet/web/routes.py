"""The page's routes, for the hub's application to mount.

Every page has three forms at one address: HTML, ``<address>.json`` (the protocol object it shows),
and, for ``Accept: text/event-stream``, the stream that keeps the open page current.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from edgefleet.base.clock import Clock, SystemClock
from edgefleet.base.entropy import Entropy, SystemEntropy
from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.protocol.operator import Unquarantine
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, Verb
from edgefleet.protocol.wire import encode, problem
from edgefleet.web import answers, limits
from edgefleet.web.hub_interface import Reads
from edgefleet.web.live import EventStream, Live
from edgefleet.web.pages import PAGES, Asked, Build, Page, rollout_page
from edgefleet.web.render import document, fragment, page_address
from edgefleet.web.session import Sessions

APPROVE: Final = "approve"
COMPRESSED: Final = (Middleware(GZipMiddleware, minimum_size=limits.GZIP_BYTES, compresslevel=6),)
FOR_PROGRAMS: Final = ("/api/", "/device/", "/health", "/metrics")
NEWS_TYPE: Final = "application/vnd.edgefleet.news+json"  # asked for by live.js when it polls


def routes_for(
    hub: Reads,
    *,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    interval_s: float = limits.LIVE_INTERVAL_S,
) -> list[BaseRoute]:
    """All routes of the page over ``hub``."""
    site = _Site(hub, clock or SystemClock(), entropy or SystemEntropy(), interval_s)
    routes: list[BaseRoute] = []
    for path, build in PAGES:
        # The twin first: a parameter of the page's path would also match its ``.json``.
        routes.append(Route(f"{path}.json", partial(site.twin, build), middleware=COMPRESSED))
        routes.append(Route(path, partial(site.page, build), middleware=COMPRESSED))
    return [
        *routes,
        Route("/rollouts/{rollout}/{verb}", site.verb, methods=["POST"]),
        Route("/fleet/{verb}", site.freeze, methods=["POST"]),
        Route("/devices/{device}/unquarantine", site.unquarantine, methods=["POST"]),
        Route("/login", site.login, methods=["POST"]),
        Route("/logout", site.logout, methods=["POST"]),
        Route("/static/{name}", site.static, middleware=COMPRESSED),
        Route("/favicon.ico", site.favicon),
        Elsewhere("/{path:path}", site.missing, methods=["GET"]),
    ]


class Elsewhere(Route):
    """The addresses that no other route has, without those of programs."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = str(scope.get("path", ""))
        if path.startswith(FOR_PROGRAMS):
            return Match.NONE, {}
        return super().matches(scope)


class _Site:
    def __init__(self, hub: Reads, clock: Clock, entropy: Entropy, interval_s: float) -> None:
        self._hub = hub
        self._clock = clock
        self._sessions = Sessions(hub.operator_token, clock, entropy)
        self._live = Live(clock, interval_s)
        self._assets = answers.load_assets()

    async def page(self, build: Build, request: Request) -> Response:
        """HTML, the event stream or the news, by the request's ``Accept`` header."""
        if "token" in request.query_params:
            return self._enter(request, request.query_params["token"], _without_token(request))
        session = self._session(request)
        if session is None:
            return self._login_form(_address(request))
        asked = Asked(request.path_params, request.query_params)
        view = partial(build, self._hub, asked)
        accepted = request.headers.get("accept", "")
        try:
            if "text/event-stream" in accepted:
                return self._stream(_address(request), view)
            if NEWS_TYPE in accepted:
                return answers.json(self._live.news(_address(request), view))
            return self._html(view(), _address(request), session)
        except EdgefleetError as error:
            return self._error(error, session)

    async def twin(self, build: Build, request: Request) -> Response:
        """The page as JSON data."""
        names = dict(request.path_params)
        if request.query_params.get("as") == "page" and names:
            request.scope["path_params"] = names | {
                list(names)[-1]: f"{list(names.values())[-1]}.json"
            }
            return await self.page(build, request)
        try:
            if self._session(request) is None:
                raise OperatorError("not_authorized", "No valid session.")
            return answers.json(encode(build(self._hub, Asked(names, request.query_params)).twin))
        except EdgefleetError as error:
            return answers.json(encode(problem(error)), error.status)

    async def verb(self, request: Request) -> Response:
        """Run an operator's verb on a rollout."""
        rollout_id, name = request.path_params["rollout"], request.path_params["verb"]
        back = page_address("rollouts", rollout_id)
        session = self._session(request)
        if session is None:
            return self._login_form(back)
        try:
            form = await self._form(request, session)
            if name == APPROVE:
                await self._hub.approve(
                    rollout_id,
                    ApproveRequest(person=_person(form), note=_note(form, name)),
                )
                return answers.redirect(back)
            if name not in set(Verb):
                raise OperatorError("not_found", f"There is no verb {name!r}.")
            generation = form.get("generation", "")
            command = Command(
                generation=int(generation) if generation.isdecimal() else None,
                note=_note(form, name),
            )
            await self._hub.command(rollout_id, Verb(name), command, "operator")
        except EdgefleetError as error:
            return self._refused(rollout_id, session, error)
        return answers.redirect(back)

    async def freeze(self, request: Request) -> Response:
        """Freeze the whole fleet, or thaw it."""
        session = self._session(request)
        if session is None:
            return self._login_form("/")
        try:
            form = await self._form(request, session)
            name = request.path_params["verb"]
            if name not in {"freeze", "thaw"}:
                raise OperatorError("not_found", f"There is no verb {name!r}.")
            await self._hub.freeze(Freeze(frozen=name == "freeze", note=_note(form, name)))
        except EdgefleetError as error:
            return self._error(error, session)
        return answers.redirect("/")

    async def unquarantine(self, request: Request) -> Response:
        """Unquarantine a device."""
        session = self._session(request)
        if session is None:
            return self._login_form("/")
        try:
            form = await self._form(request, session)
            device = request.path_params["device"]
            await self._hub.unquarantine(device, Unquarantine(note=_note(form, device)))
        except EdgefleetError as error:
            return self._error(error, session)
        return answers.redirect("/")

    async def _form(self, request: Request, session: str) -> Mapping[str, str]:
        """The form's fields. Raises OperatorError ``form_stale`` for another session's form."""
        form = await answers.read_form(request)
        if not self._sessions.form_token_valid(session, form.get("form_token", "")):
            raise OperatorError("form_stale", "The form was not made for this session.")
        return form

    async def login(self, request: Request) -> Response:
        try:
            form = await answers.read_form(request)
        except EdgefleetError as error:
            return self._error(error, None)
        return self._enter(request, form.get("token", "").strip(), form.get("next", "/"))

    async def logout(self, request: Request) -> Response:
        session = self._session(request)
        answer = answers.redirect("/")
        try:
            form = await answers.read_form(request)
        except EdgefleetError as error:
            return self._error(error, session)
        if session and self._sessions.form_token_valid(session, form.get("form_token", "")):
            answer.delete_cookie(self._sessions.cookie, httponly=True, samesite="strict")
        return answer

    async def static(self, request: Request) -> Response:
        asset = self._assets.get(request.path_params["name"])
        if asset is None:
            return self._error(OperatorError("not_found", "There is no such file."), None)
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(asset.content, 200, answers.HEADERS | kept, asset.content_type)

    async def missing(self, request: Request) -> Response:
        """An unknown address: a page for people, and the error of every endpoint for programs."""
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        error = OperatorError(
            "not_found",
            f"There is no page {request.url.path}.",
            hint="Go to the fleet, or choose a page above.",
        )
        return self._error(error, self._session(request))

    async def favicon(self, _: Request) -> Response:
        icon = self._assets["favicon.svg"]
        return Response(icon.content, 200, answers.HEADERS, icon.content_type)

    def _session(self, request: Request) -> str | None:
        session = request.cookies.get(self._sessions.cookie, "")
        return session if self._sessions.valid(session) else None

    def _enter(self, request: Request, token: str, address: str) -> Response:
        session = self._sessions.open(token)
        if session is None:
            return self._login_form(address, refused=True)
        answer = answers.redirect(answers.local_address(address))
        answer.set_cookie(
            self._sessions.cookie,
            session,
            max_age=limits.SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    def _stream(self, address: str, view: partial[Page]) -> Response:
        view()  # a page that raises is answered with its HTTP status, not inside a stream
        if self._live.full:
            return answers.json(b"{}", 503)
        return EventStream(self._live.stream(address, view), answers.HEADERS)

    def _html(
        self, page: Page, address: str, session: str, *, error: EdgefleetError | None = None
    ) -> Response:
        context = self._frame(page.title, page.section, session) | dict(page.context)
        context["live"] = {name: fragment(name, page.context) for name in page.parts}
        context |= {"error": error, "live_address": address, "twin": _twin_address(address)}
        return answers.html(document(page.template, context), error.status if error else 200)

    def _refused(self, rollout_id: str, session: str, error: EdgefleetError) -> Response:
        """The rollout's page with the error, or the error alone if the rollout does not exist."""
        try:
            page = rollout_page(self._hub, Asked({"rollout": rollout_id}, {}))
        except EdgefleetError as missing:
            return self._error(missing, session)
        return self._html(page, page_address("rollouts", rollout_id), session, error=error)

    def _error(self, error: EdgefleetError, session: str | None) -> Response:
        context = self._frame(error.code, "", session) | {"error": error}
        return answers.html(document("error.html", context), error.status)

    def _login_form(self, address: str, *, refused: bool = False) -> Response:
        context = self._frame("Sign in", "", None) | {"next": address, "refused": refused}
        return answers.html(document("login.html", context), 401)

    def _frame(self, title: str, section: str, session: str | None) -> dict[str, object]:
        """The template values of the frame around every page."""
        return {
            "title": title,
            "section": section,
            "now": self._clock.now(),
            "form_token": self._sessions.form_token(session) if session else None,
            "assets": {name: asset.address for name, asset in self._assets.items()},
            "twin": None,
        }


def _note(form: Mapping[str, str], name: str) -> str:
    """The note beside the button ``name``. Each button of a page has its own field."""
    return form.get(f"note-{name}", "")[:500]


def _address(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _twin_address(address: str) -> str:
    path, _, query = address.partition("?")
    rest = query.removeprefix("as=page")
    return f"{path}.json?{rest}" if rest else f"{path}.json"


def _without_token(request: Request) -> str:
    query: Mapping[str, str] = {
        name: value for name, value in request.query_params.items() if name != "token"
    }
    return request.url.path + (f"?{urlencode(query)}" if query else "")


def _person(form: Mapping[str, str]) -> str:
    """The name in the form. Raises OperatorError ``bad_request`` if it is empty."""
    name = form.get("person", "").strip()[:63]
    if not name:
        raise OperatorError("bad_request", "Enter your name to approve.", field="person")
    return name
