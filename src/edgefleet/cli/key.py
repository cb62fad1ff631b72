"""``edgefleet key``: the publisher's signing key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from edgefleet.base.errors import OperatorError
from edgefleet.cli.command import verb
from edgefleet.cli.invocation import Invocation, pass_invocation
from edgefleet.cli.screen import facts
from edgefleet.protocol.wire import Wire

if TYPE_CHECKING:
    from edgefleet.security.signing import PublicKey, PublisherKey


PUBLIC_SUFFIX: Final = ".pub"


class KeyView(Wire, frozen=True, kw_only=True):
    """A publisher's key without its private part."""

    key: str
    public_file: str
    keyid: str
    public_key: str


def default_key() -> Path:
    """``~/.config/edgefleet/publisher.key`` (XDG)."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return home / "edgefleet" / "publisher.key"


def load_key(given: Path | None) -> PublisherKey:
    """The publisher's key. Raises OperatorError ``setting_invalid`` if the file does not exist."""
    from edgefleet.security.signing import PublisherKey

    path = given or default_key()
    if not path.exists():
        where = f" --key {given}" if given else ""
        raise OperatorError(
            "setting_invalid",
            f"There is no key at {path}.",
            field="key",
            hint=f"Make one with `edgefleet key new{where}`, or name your key file with --key.",
        )
    return PublisherKey.load(path)


def key_option() -> click.Option:
    return click.Option(
        ["--key"],
        type=click.Path(path_type=Path, dir_okay=False),
        help="The key file. Default: ~/.config/edgefleet/publisher.key.",
    )


@verb(
    "new",
    hub=False,
    examples=("edgefleet key new", "edgefleet key new --key ./release-team.key --json"),
)
@pass_invocation
def new(invocation: Invocation, key: Path | None) -> None:
    """Make a publisher's key.

    The private key stays in this file, which only its owner can read. The public key is written
    beside it, with the suffix .pub: provision devices with it. An existing key is never
    overwritten.
    """
    from edgefleet.security.signing import PublisherKey

    path = key or default_key()
    made = PublisherKey.generate()
    try:
        made.save(path)
    except FileExistsError as error:
        raise OperatorError(
            "setting_invalid",
            f"{path} already holds a key.",
            field="key",
            hint="Show it with `edgefleet key show`, or name another file with --key.",
        ) from error
    public_file = _public_file(path)
    public_file.write_text(f"{made.public.text}\n")
    _answer(invocation, path, made.public)
    if not invocation.json:
        invocation.screen.note(
            "Next: edgefleet model publish FOLDER --trust\n"
            f"      edgefleet agent run ... --trust {public_file}"
        )


@verb("show", hub=False, examples=("edgefleet key show", "edgefleet key show --public"))
@click.option("--public", is_flag=True, help="Print only the public key.")
@pass_invocation
def show(invocation: Invocation, key: Path | None, public: bool) -> None:
    """Show a publisher's public key and its id.

    Give the public key to devices (`edgefleet agent run --trust FILE`) and to the hub (`edgefleet
    model publish --trust`).
    """
    found = load_key(key).public
    _answer(invocation, key or default_key(), found, lines=[found.text] if public else None)


for _command in (new, show):
    _command.params.insert(0, key_option())


def _public_file(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".key") + PUBLIC_SUFFIX)


def _answer(
    invocation: Invocation, path: Path, public: PublicKey, *, lines: list[str] | None = None
) -> None:
    view = KeyView(
        key=str(path),
        public_file=str(_public_file(path)),
        keyid=public.keyid,
        public_key=public.text,
    )
    rows = [
        ("key", view.key),
        ("public file", view.public_file),
        ("key id", view.keyid),
        ("public key", view.public_key),
    ]
    invocation.screen.answer(view, lines or facts(rows))
