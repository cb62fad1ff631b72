"""The replies behind ``/ui``: one document without other files, and its figures as JSON.

The document needs nothing from elsewhere, so it works in a network without the internet and without
the hub. Its policy allows the script and the style that are in it, by their digests, and requests
to this server alone.
"""

import base64
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

from edgefleet.http1.message import Reply
from edgefleet.protocol.wire import encode
from edgefleet.serving.model_host import ModelHost
from edgefleet.serving.page.figures import figures

_FRESH: Final = ("Cache-Control", "no-store")
_PLAIN: Final = ("X-Content-Type-Options", "nosniff")


def page_reply() -> Reply:
    """The document."""
    document, policy = _document()
    return Reply(
        200,
        document,
        "text/html; charset=utf-8",
        (
            ("Content-Security-Policy", policy),
            ("Referrer-Policy", "no-referrer"),
            _PLAIN,
            _FRESH,
        ),
    )


def figures_reply(host: ModelHost) -> Reply:
    """The figures as the document reads them."""
    return Reply(200, encode(figures(host)), headers=(_PLAIN, _FRESH))


@cache
def _document() -> tuple[bytes, str]:
    """The document with its style and script, and the policy that allows these two."""
    files = resources.files("edgefleet.serving.page")
    html, style, script = (
        files.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    document = html.replace("/* style */", style).replace("/* script */", script)
    policy = (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return document.encode(), policy


def _source(text: str) -> str:
    """The source expression of an inline text (www.w3.org/TR/CSP3, 2.3.1)."""
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
