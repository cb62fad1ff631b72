"""Names from the hub for TAB. Message types are not imported: that takes longer than the call."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from edgefleet.base.errors import EdgefleetError
from edgefleet.base.network import HttpLink
from edgefleet.client.places import HUB_FILE, TOKEN_FILE, default_data_dir, may_have_token


def live_names(
    kind: str,
    prefix: str,
    model: str,
    words: Sequence[str],
    environ: Mapping[str, str] = os.environ,
    *,
    most: int,
    within_s: float,
) -> list[str]:
    """The first names of ``kind`` that begin with ``prefix``. Empty without a hub that answers.

    ``words`` are those of the command: its hub options come before the variables.
    """
    with suppress(EdgefleetError, OSError, ValueError, KeyError, TypeError):
        url, token = _access(words, environ)
        query = {"prefix": prefix, "model": model, "limit": most}
        link = HttpLink(url)
        answer = link.request(
            "GET",
            f"/api/v1/names/{quote(kind)}?{urlencode(query)}",
            headers={"Authorization": f"Bearer {token}"},
            timeout_s=within_s,
        )
        link.close()
        if answer.status == 200:
            return [str(name) for name in json.loads(answer.body)["names"]]
    return []


def _access(words: Sequence[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """The address and the token of the hub, found as ``client.discover`` finds them."""
    settings = _settings(environ)

    def given(option: str, variable: str) -> str:
        places = [place for place, word in enumerate(words[:-1]) if word == f"--{option}"]
        if places:
            return words[places[-1] + 1]
        return environ.get(variable) or str(settings.get(option.replace("-", "_"), ""))

    folder = given("data-dir", "EDGEFLEET_DATA_DIR")
    place = Path(folder).expanduser() if folder else default_data_dir(environ)
    url, token = given("hub", "EDGEFLEET_HUB"), given("token", "EDGEFLEET_TOKEN")
    its_url = None
    with suppress(OSError):
        its_url = str(json.loads((place / HUB_FILE).read_bytes())["url"])
    url = url or its_url or ""
    if not token and may_have_token(url, its_url):
        token = (place / TOKEN_FILE).read_text().strip()
    return url, token


def _settings(environ: Mapping[str, str]) -> Mapping[str, Any]:
    """The top level of the TOML file, as ``cli.config_file`` finds it. Empty without a file."""
    home = Path(environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    named = environ.get("EDGEFLEET_CONFIG")
    places = (
        [Path(named)] if named else [Path("edgefleet.toml"), home / "edgefleet" / "config.toml"]
    )
    for file in places:
        if file.is_file():
            import tomllib

            return {
                key.replace("-", "_"): value
                for key, value in tomllib.loads(file.read_text()).items()
            }
    return {}
