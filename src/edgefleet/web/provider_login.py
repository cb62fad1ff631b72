"""The two steps of a login with a provider: the way to it, and the way back."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from edgefleet.base.errors import EdgefleetError, OperatorError
from edgefleet.web import answers
from edgefleet.web.hub_interface import Logins, ProviderLogins
from edgefleet.web.session import client_address, set_session

_PATH = "/login"  # browsers send the cookie to these two steps alone


class ProviderPages:
    """``login_form`` makes the login page with an error."""

    def __init__(
        self, logins: Logins, login_form: Callable[[str, EdgefleetError], Response]
    ) -> None:
        self._logins = logins
        self._login_form = login_form

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        next_ = answers.local_address(request.query_params.get("next", "/"))
        try:
            provider = self._provider()
            address, cookie = await provider.begin(next_)
        except EdgefleetError as error:
            return self._login_form(next_, error)
        answer = answers.redirect(address)
        answer.set_cookie(
            provider.cookie,
            cookie,
            max_age=int(provider.cookie_s),
            path=_PATH,
            httponly=True,
            samesite="lax",
            secure=provider.is_https,
        )
        return answer

    async def finish(self, request: Request) -> Response:
        """Open a session for the browser that the provider sends back."""
        try:
            provider = self._provider()
            session, next_ = await provider.finish(
                _once(request), request.cookies.get(provider.cookie, ""), client_address(request)
            )
        except EdgefleetError as error:
            return self._login_form("/", error)
        answer = answers.redirect(answers.local_address(next_))
        answer.delete_cookie(
            provider.cookie, path=_PATH, httponly=True, samesite="lax", secure=provider.is_https
        )
        set_session(answer, self._logins, session, secure=provider.is_https)
        return answer

    def _provider(self) -> ProviderLogins:
        """Raises OperatorError ``not_found``."""
        if self._logins.provider is None:
            raise OperatorError(
                "not_found",
                "This hub has no provider for logins.",
                hint="Log in with a name, or set one: docs/oidc.md.",
            )
        return self._logins.provider


def _once(request: Request) -> dict[str, str]:
    """The parameters. One that is repeated counts as missing."""
    items = request.query_params.multi_items()
    names = [name for name, _ in items]
    return {name: value for name, value in items if names.count(name) == 1}
