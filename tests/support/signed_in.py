"""The page over a fake hub, with a signed-in user."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette

from edgefleet.web.routes import routes_for
from support.asgi import Reply, ask
from support.fake_reads import TOKEN, FakeReads


class SignedIn:
    """Sends requests with the sign-in cookie. ``cookie`` is empty until ``sign_in``."""

    def __init__(self, reads: FakeReads, **options: Any) -> None:
        self.reads = reads
        self.app = Starlette(routes=routes_for(reads, **options))
        self.cookie = ""

    def sign_in(self, token: str = TOKEN, name: str = "operator") -> Reply:
        reply = self.post("/login", {"name": name, "secret": token, "next": "/devices"})
        self.cookie = reply.headers.get("set-cookie", "").partition(";")[0]
        return reply

    def get(self, target: str, **headers: str) -> Reply:
        return ask(self.app, "GET", target, headers=self.headers() | headers)

    def post(self, target: str, fields: Mapping[str, str], **headers: str) -> Reply:
        kind = {"content-type": "application/x-www-form-urlencoded", **headers}
        return ask(
            self.app, "POST", target, headers=self.headers() | kind, body=urlencode(fields).encode()
        )

    def form_token(self) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]{128})"', self.get("/").text)
        assert found is not None
        return found[1]

    def headers(self) -> dict[str, str]:
        return {"cookie": self.cookie} if self.cookie else {}


def signed_in(reads: FakeReads | None = None, **options: Any) -> SignedIn:
    page = SignedIn(reads or FakeReads(), **options)
    page.sign_in()
    return page
