"""The page's routes, for the hub's application to mount.

Every page has three forms at one address: HTML, ``<address>.json`` (the protocol object it shows),
and, for ``Accept: text/event-stream``, the stream that keeps the open page current.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

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
from edgefleet.protocol.people import OPERATOR, Permission
from edgefleet.protocol.permissions import NEEDS, PAGE
from edgefleet.protocol.rollout import ApproveRequest, Command, Freeze, Verb
from edgefleet.protocol.wire import encode, problem
from edgefleet.security.principals import SIGNED_IN, Principal
from edgefleet.web import answers, limits
from edgefleet.web.hub_interface import Reads
from edgefleet.web.live import EventStream, Live
from edgefleet.web.pages import PAGES, Asked, Build, Page, Reader, rollout_page
from edgefleet.web.render import document, fragment, page_address
from edgefleet.web.session import form_token, form_token_valid, is_same_origin

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
    """All routes of the page over ``hub``. Raises KeyError for a route without a permission."""
    site = _Site(hub, clock or SystemClock(), entropy or SystemEntropy(), interval_s)
    routes: list[BaseRoute] = []
    for path, build in PAGES:
        needed = _needed(path)
        # The twin first: a parameter of the page's path would also match its ``.json``.
        twin, page = partial(site.twin, build, needed), partial(site.page, build, needed)
        routes.append(Route(f"{path}.json", twin, middleware=COMPRESSED))
        routes.append(Route(path, page, middleware=COMPRESSED))
    actions: tuple[tuple[str, Callable[[Permission, Request], Awaitable[Response]]], ...] = (
        ("/rollouts/{rollout}/approve", site.approve),
        ("/rollouts/{rollout}/{verb}", site.verb),
        ("/fleet/{verb}", site.freeze),
        ("/devices/{device}/unquarantine", site.unquarantine),
    )
    for path, action in actions:
        routes.append(Route(path, partial(action, _needed(path)), methods=["POST"]))
    return [
        *routes,
        Route("/login", site.login, methods=["POST"]),
        Route("/login", site.login_by_link, methods=["GET"]),
        Route("/logout", site.logout, methods=["POST"]),
        Route("/static/{name}", site.static, middleware=COMPRESSED),
        Route("/favicon.ico", site.favicon),
        Elsewhere("/{path:path}", site.missing, methods=["GET"]),
    ]


def _needed(path: str) -> Permission:
    """The permission that the page at ``path`` needs. Raises KeyError if the table has none."""
    return NEEDS[PAGE[path]]


class Elsewhere(Route):
    """The addresses that no other route has, without those of programs."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = str(scope.get("path", ""))
        if path.startswith(FOR_PROGRAMS):
            return Match.NONE, {}
        return super().matches(scope)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request with a valid session."""

    session: str
    by: Principal

    @property
    def reader(self) -> Reader:
        return Reader(
            may_operate=self.by.may(Permission.OPERATE),
            may_approve=self.by.may(Permission.APPROVE),
            shares_token=self.by.is_operator_token,
        )

    def key(self, address: str) -> str:
        """Requests with equal keys get equal fragments."""
        return f"{self.reader} {address}"


class _Site:
    def __init__(self, hub: Reads, clock: Clock, entropy: Entropy, interval_s: float) -> None:
        self._hub = hub
        self._clock = clock
        self._entropy = entropy
        self._live = Live(clock, interval_s)
        self._assets = answers.load_assets()

    async def page(self, build: Build, needed: Permission, request: Request) -> Response:
        """HTML, the event stream or the news, by the request's ``Accept`` header."""
        visit = self._visit(request)
        address = _address(request)
        if visit is None:
            return self._login_form(address)
        asked = Asked(request.path_params, request.query_params, visit.reader)
        view = partial(build, self._hub, asked)
        accepted = request.headers.get("accept", "")
        try:
            visit.by.check(needed, "this page")
            if "text/event-stream" in accepted:
                return self._stream(visit.key(address), view, partial(self._still, request))
            if NEWS_TYPE in accepted:
                return answers.json(self._live.news(visit.key(address), view))
            return self._html(view(), address, visit)
        except EdgefleetError as error:
            return self._error(error, visit)

    async def twin(self, build: Build, needed: Permission, request: Request) -> Response:
        """The page as JSON data."""
        names = dict(request.path_params)
        if request.query_params.get("as") == "page" and names:
            request.scope["path_params"] = names | {
                list(names)[-1]: f"{list(names.values())[-1]}.json"
            }
            return await self.page(build, needed, request)
        try:
            self._still(request).by.check(needed, "this page")
            return answers.json(encode(build(self._hub, Asked(names, request.query_params)).twin))
        except EdgefleetError as error:
            return answers.json(encode(problem(error)), error.status)

    async def approve(self, needed: Permission, request: Request) -> Response:
        """Approve a rollout."""
        rollout_id = request.path_params["rollout"]

        async def act(visit: Visit, form: Mapping[str, str]) -> None:
            approval = ApproveRequest(person=_person(form), note=_note(form, "approve"))
            await self._hub.approve(rollout_id, approval, visit.by)

        back = page_address("rollouts", rollout_id)
        return await self._act(request, needed, act, back, partial(self._refused, rollout_id))

    async def verb(self, needed: Permission, request: Request) -> Response:
        """Run an operator's verb on a rollout."""
        rollout_id, name = request.path_params["rollout"], request.path_params["verb"]

        async def act(visit: Visit, form: Mapping[str, str]) -> None:
            if name not in set(Verb):
                raise OperatorError("not_found", f"There is no verb {name!r}.")
            generation = form.get("generation", "")
            command = Command(
                generation=int(generation) if generation.isdecimal() else None,
                note=_note(form, name),
            )
            await self._hub.command(rollout_id, Verb(name), command, visit.by)

        back = page_address("rollouts", rollout_id)
        return await self._act(request, needed, act, back, partial(self._refused, rollout_id))

    async def freeze(self, needed: Permission, request: Request) -> Response:
        """Freeze the whole fleet, or thaw it."""
        name = request.path_params["verb"]

        async def act(visit: Visit, form: Mapping[str, str]) -> None:
            if name not in {"freeze", "thaw"}:
                raise OperatorError("not_found", f"There is no verb {name!r}.")
            freeze = Freeze(frozen=name == "freeze", note=_note(form, name))
            await self._hub.freeze(freeze, visit.by)

        return await self._act(request, needed, act, "/", self._error)

    async def unquarantine(self, needed: Permission, request: Request) -> Response:
        """Unquarantine a device."""
        device = request.path_params["device"]

        async def act(visit: Visit, form: Mapping[str, str]) -> None:
            note = _note(form, device)
            await self._hub.unquarantine(device, Unquarantine(note=note), visit.by)

        return await self._act(request, needed, act, "/", self._error)

    async def _act(
        self,
        request: Request,
        needed: Permission,
        act: Callable[[Visit, Mapping[str, str]], Awaitable[None]],
        back: str,
        refused: Callable[[EdgefleetError, Visit], Response],
    ) -> Response:
        """Run the action of a form of this session, then lead ``back``."""
        visit = self._visit(request)
        if visit is None:
            return self._login_form(back)
        try:
            form = await self._form(request, visit)
            visit.by.check(needed, "this action")
            await act(visit, form)
        except EdgefleetError as error:
            return refused(error, visit)
        return answers.redirect(back)

    async def _form(self, request: Request, visit: Visit) -> Mapping[str, str]:
        """The form's fields. Raises OperatorError ``form_stale`` for another session's form."""
        form = await answers.read_form(request)
        fits = form_token_valid(visit.session, form.get("form_token", ""))
        if not (fits and is_same_origin(request)):
            raise OperatorError("form_stale", "The form was not made for this session.")
        return form

    async def login(self, request: Request) -> Response:
        """Open a session with a name, and a password or a token."""
        try:
            form = await answers.read_form(request)
            if not is_same_origin(request):
                raise OperatorError("form_stale", "The form was made by another site.")
        except EdgefleetError as error:
            return self._error(error, None)
        name, secret = form.get("name", "").strip()[:63], form.get("secret", "").strip()[:512]
        enter = partial(self._hub.logins.enter, name, secret, client_address(request))
        return await self._enter(request, enter, form.get("next", "/"))

    async def login_by_link(self, request: Request) -> Response:
        """Open a session with a one-use link. Without a code: the form."""
        code = request.query_params.get("code", "")
        # A browser may fetch a link ahead of a click, which must not use it up.
        if not code or "prefetch" in request.headers.get("sec-purpose", ""):
            return self._login_form("/")
        enter = partial(self._hub.logins.enter_by_link, code, client_address(request))
        return await self._enter(request, enter, "/")

    async def logout(self, request: Request) -> Response:
        """End the session, at the hub and in the browser."""
        visit = self._visit(request)
        answer = answers.redirect("/")
        if visit is None:
            return answer
        try:
            await self._form(request, visit)
            await self._hub.logins.log_out(visit.session)
        except EdgefleetError as error:
            return self._error(error, visit)
        answer.delete_cookie(self._hub.logins.cookie, httponly=True, samesite="lax")
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
        return self._error(error, self._visit(request))

    async def favicon(self, _: Request) -> Response:
        icon = self._assets["favicon.svg"]
        return Response(icon.content, 200, answers.HEADERS, icon.content_type)

    def _visit(self, request: Request) -> Visit | None:
        logins = self._hub.logins
        session = request.cookies.get(logins.cookie, "")
        by = logins.principal(session, client_address(request))
        if by is None:
            return None
        request.scope.get(SIGNED_IN, lambda: None)()
        return Visit(session, by)

    def _still(self, request: Request) -> Visit:
        """Raises OperatorError ``unauthenticated`` if the session has ended."""
        visit = self._visit(request)
        if visit is None:
            raise OperatorError("unauthenticated", "No valid session.", hint="Sign in again.")
        return visit

    async def _enter(
        self, request: Request, enter: Callable[[], Awaitable[str]], address: str
    ) -> Response:
        try:
            session = await enter()
        except EdgefleetError as error:
            return self._login_form(address, error)
        answer = answers.redirect(answers.local_address(address))
        answer.set_cookie(
            self._hub.logins.cookie,
            session,
            max_age=int(self._hub.logins.session_s),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    def _stream(self, key: str, view: Callable[[], Page], check: Callable[[], object]) -> Response:
        view()  # a page that raises is answered with its HTTP status, not inside a stream
        if self._live.full:
            return answers.json(b"{}", 503)
        return EventStream(self._live.stream(key, view, check), answers.HEADERS)

    def _html(
        self, page: Page, address: str, visit: Visit, *, error: EdgefleetError | None = None
    ) -> Response:
        context = self._frame(page.title, page.section, visit) | dict(page.context)
        context["live"] = {name: fragment(name, page.context) for name in page.parts}
        context |= {"error": error, "live_address": address, "twin": _twin_address(address)}
        return answers.html(document(page.template, context), error.status if error else 200)

    def _refused(self, rollout_id: str, error: EdgefleetError, visit: Visit) -> Response:
        """The rollout's page with the error, or the error alone if the rollout does not exist."""
        try:
            page = rollout_page(self._hub, Asked({"rollout": rollout_id}, {}, visit.reader))
        except EdgefleetError:
            return self._error(error, visit)
        return self._html(page, page_address("rollouts", rollout_id), visit, error=error)

    def _error(self, error: EdgefleetError, visit: Visit | None) -> Response:
        context = self._frame(error.code, "", visit) | {"error": error}
        return answers.html(document("error.html", context), error.status)

    def _login_form(self, address: str, error: EdgefleetError | None = None) -> Response:
        context = self._frame("Sign in", "", None) | {"next": address, "refused": error}
        answer = answers.html(document("login.html", context), error.status if error else 401)
        if error is not None and error.code == "too_many_logins":
            answer.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return answer

    def _frame(self, title: str, section: str, visit: Visit | None) -> dict[str, object]:
        """The template values of the frame around every page."""
        return {
            "title": title,
            "section": section,
            "now": self._clock.now(),
            "by": visit.by if visit else None,
            "form_token": form_token(visit.session, self._entropy) if visit else None,
            "assets": {name: asset.address for name, asset in self._assets.items()},
            "twin": None,
        }


def client_address(request: Request) -> str:
    """The network address of the client. Empty if it is not known."""
    return request.client.host if request.client else ""


def _note(form: Mapping[str, str], name: str) -> str:
    """The note beside the button ``name``. Each button of a page has its own field."""
    return form.get(f"note-{name}", "")[:500]


def _address(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _twin_address(address: str) -> str:
    path, _, query = address.partition("?")
    rest = query.removeprefix("as=page")
    return f"{path}.json?{rest}" if rest else f"{path}.json"


def _person(form: Mapping[str, str]) -> str:
    """The name in the form, if it has a field for one. Raises OperatorError ``bad_request``."""
    name = form.get("person", OPERATOR).strip()[:63]
    if not name:
        raise OperatorError("bad_request", "Enter your name to approve.", field="person")
    return name
