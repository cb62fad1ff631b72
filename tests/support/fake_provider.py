"""An OpenID Connect provider of our own, which misbehaves as a test wants."""

import hmac
import json
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from joserfc import jws
from joserfc.jwk import RSAKey

CLIENT, SECRET = "edgefleet", "s3cret+/ of the hub"
Claims = dict[str, Any]


def signed(claims: Mapping[str, Any], key: Any, algorithm: str, **header: Any) -> str:
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    head = {"alg": algorithm, "typ": "JWT"} | header
    return jws.serialize_compact(head, json.dumps(claims), key, registry=registry)


def unsigned(claims: Mapping[str, Any]) -> str:
    return f"{_unsigned(claims, 'none')}."


def signed_with_secret(claims: Mapping[str, Any], secret: bytes) -> str:
    """HS256 with any bytes as the secret: libraries refuse a public key here."""
    text = _unsigned(claims, "HS256")
    return f"{text}.{_text(hmac.digest(secret, text.encode(), 'sha256'))}"


def _unsigned(claims: Mapping[str, Any], algorithm: str) -> str:
    parts = ({"alg": algorithm, "typ": "JWT", "kid": "k1"}, claims)
    return ".".join(_text(json.dumps(one).encode()) for one in parts)


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class FakeProvider:
    """``claims`` changes those of the next tokens; ``token`` replaces the whole token.

    ``hang`` names a path whose requests get no answer until the provider is closed.
    """

    now: Callable[[], float]
    issuer: str = ""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1"}))
    groups: tuple[str, ...] = ("edge-admins",)
    subject: str = "248289761001"
    name: str = "Ada"
    claims: Callable[[Claims], Claims] = lambda claims: claims
    token: Callable[[Claims], str] | None = None
    jwks: bytes | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # in the discovery document
    hang: str = ""
    broken: str = ""  # a path that answers with an error
    asked: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def authorize(self, url: str) -> dict[str, str]:
        """The parameters that the browser brings back from ``url``, after the person has logged in there."""
        asked = dict(parse_qsl(urlsplit(url).query))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{next(self.numbers)}"
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.issuer}

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == self.hang:
            self.closing.wait(60)
        if path == self.broken:
            return 502, b"{}"
        match path:
            case "/.well-known/openid-configuration":
                return 200, json.dumps(self._discovery() | dict(self.more)).encode()
            case "/jwks":
                keys = {"keys": [self.key.as_dict(private=False, use="sig", alg="RS256")]}
                return 200, self.jwks if self.jwks is not None else json.dumps(keys).encode()
            case "/token":
                return self._exchange(headers, body)
            case _:
                return 404, b"{}"

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_response_iss_parameter_supported": True,
        }

    def _exchange(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        expected = "edgefleet:s3cret%2B%2F+of+the+hub"
        given = b64decode(headers.get("authorization", "Basic ").split()[-1]).decode()
        asked = self.codes.pop(form.get("code", ""), None)  # a code works once
        challenge = sha256(form.get("code_verifier", "").encode()).digest()
        if given != expected or asked is None or asked["code_challenge"] != _text(challenge):
            return 400, b'{"error":"invalid_grant"}'
        assert form["redirect_uri"] == asked["redirect_uri"]
        claims = self.claims(
            {
                "iss": self.issuer,
                "sub": self.subject,
                "aud": CLIENT,
                "exp": self.now() + 300,
                "iat": self.now(),
                "nonce": asked["nonce"],
                "preferred_username": self.name,
                "groups": list(self.groups),
            }
        )
        token = self.token(claims) if self.token else signed(claims, self.key, "RS256", kid="k1")
        return 200, json.dumps({"id_token": token, "access_token": "a"}).encode()


@contextmanager
def fake_provider(now: Callable[[], float] = time.time) -> Iterator[FakeProvider]:
    provider = FakeProvider(now)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = provider.answer(self.path, headers, self.rfile.read(size))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # the hub has hung up
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield provider
    finally:
        provider.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
