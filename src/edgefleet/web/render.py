"""The templates, their filters, and the addresses of pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgefleet.base.texts import utc_text
from edgefleet.protocol.comparisons import comparison_text
from edgefleet.protocol.reasons import reason_text
from edgefleet.protocol.release import unjudged
from edgefleet.web import words

_AGE: Final = re.compile(r"<time data-seen=[^<]*</time>")
"""The time at which a device was last seen. Live pages get it as data, see ``live.Alive``."""


def segment(name: str) -> str:
    """``name`` as one segment of an address."""
    return quote(name, safe="")


def page_address(*names: str) -> str:
    """The address of the page of these names, such as ("devices", "lyon-1").

    If the last name ends in ``.json``, the address asks for the page and not for its JSON twin.
    """
    address = "/" + "/".join(segment(name) for name in names)
    return f"{address}?as=page" if names[-1].endswith(".json") else address


def about_address(about: str) -> str | None:
    """The address of ``device/<name>``, ``rollout/<id>`` or ``release/<m>/<r>``, else None."""
    match about.split("/"):
        case ["device", name]:
            return page_address("devices", name)
        case ["rollout", rollout_id]:
            return page_address("rollouts", rollout_id)
        case ["release", model, release]:
            return page_address("models", model, release)
        case _:
            return None


# Any: Jinja's own tables are inferred from the functions that it begins with.
_FILTERS: Final[dict[str, Any]] = {
    "about_address": about_address,
    "comparison": comparison_text,
    "clock_time": utc_text,
    "count": words.count,
    "figure": words.figure,
    "instant": words.instant,
    "latency": words.latency,
    "many": words.many,
    "reason": reason_text,
    "share": words.share,
    "size": words.size,
    "span": words.span,
    "tone": words.tone,
    "unjudged": unjudged,
    "wave_percent": words.wave_percent,
}
_FUNCTIONS: Final[dict[str, Any]] = {"address": page_address}


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("edgefleet.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(_FILTERS)
    made.globals.update(_FUNCTIONS)
    return made


_ENVIRONMENT: Final = _environment()


@dataclass(frozen=True, slots=True)
class Fragment:
    """A named part of a page. ``version`` is a hash of its HTML without the ages of devices."""

    name: str
    html: str
    version: str


def fragment(name: str, context: Mapping[str, object]) -> Fragment:
    """Render ``pages/parts/<name>.html``."""
    html = _ENVIRONMENT.get_template(f"parts/{name}.html").render(context)
    lasting = _AGE.sub("", html)
    return Fragment(name, html, blake2b(lasting.encode(), digest_size=8).hexdigest())


def document(template: str, context: Mapping[str, object]) -> str:
    """Render a whole page."""
    return _ENVIRONMENT.get_template(template).render(context)
