"""A device's downloads over its link onto its disk, verified as in the real agent."""

from collections.abc import Callable
from functools import partial

from edgefleet.agent import effect as do
from edgefleet.agent import event as happened
from edgefleet.agent.slots import MANIFEST, path
from edgefleet.base.errors import EdgefleetError, PublisherError
from edgefleet.protocol.release import Envelope
from edgefleet.protocol.wire import encode
from edgefleet.security.signing import PublicKey, open_manifest
from edgefleet.sim.limits import PIECE_S
from edgefleet.sim.load.disk import Shelf, VirtualDisk
from edgefleet.sim.load.event_loop import Action, EventLoop, Scope
from edgefleet.sim.load.hub_api import Failed, HubApi
from edgefleet.sim.load.link import VirtualLink

Fetched = happened.ManifestOpened | happened.Fetched


class Fetching:
    """One download. ``done`` is called once, later, with ManifestOpened, Fetched or ``Failed``.

    The hub's bytes arrive at once, as from a cache on the site; only the device's own link takes
    time. ``came`` (bytes by digest) survives a broken link, so that the next attempt resumes there.
    """

    def __init__(
        self,
        world: EventLoop,
        scope: Scope,
        *,
        link: VirtualLink,
        disk: VirtualDisk,
        shelf: Shelf,
        came: dict[str, int],
        done: Callable[[Fetched | Failed], None],
    ) -> None:
        self._world = world
        self._scope = scope
        self._link = link
        self._disk = disk
        self._shelf = shelf
        self._came = came
        self._done = done

    def manifest(
        self, effect: do.FetchManifest, hub: HubApi, token: str, trusted: dict[str, PublicKey]
    ) -> None:
        def received(envelope: Envelope | Failed) -> None:
            if isinstance(envelope, Failed):
                self._end(envelope)
            else:
                self._carry(len(encode(envelope)), partial(self._open, effect, envelope, trusted))

        received_in_scope = self._scope.guarded(received)
        self._carry(0, partial(hub.manifest, token, effect.sha256, received_in_scope))

    def file(self, effect: do.Fetch, hub: HubApi, token: str) -> None:
        artifact = effect.artifact
        if self._disk.digest(path(effect.model, effect.slot, effect.file)) == artifact.sha256:
            self._end(happened.Fetched(model=effect.model, job=effect.job))
        elif self._disk.free_bytes() < artifact.size_bytes:
            self._end(Failed("disk_full", f"{artifact.size_bytes} bytes do not fit on the disk."))
        else:
            received = self._scope.guarded(partial(self._pieces, effect))
            self._carry(0, partial(hub.artifact, token, artifact.sha256, received))

    def _open(
        self, effect: do.FetchManifest, envelope: Envelope, trusted: dict[str, PublicKey]
    ) -> None:
        try:
            opened = open_manifest(envelope, trusted)
            kept = self._shelf.put(encode(envelope))
            self._disk.write(path(effect.model, effect.slot, MANIFEST), kept)
        except EdgefleetError as error:
            self._end(Failed(error.code, error.message))
            return
        self._end(
            happened.ManifestOpened(
                model=effect.model,
                job=effect.job,
                sha256=opened.digest,
                manifest=self._shelf.manifest(opened),
            )
        )

    def _pieces(self, effect: do.Fetch, data: bytes | Failed) -> None:
        """Transfer the next piece. Repeats until the link breaks or all pieces have arrived."""
        if isinstance(data, Failed):
            self._end(data)
            return
        if not self._link.up(self._world.now()):
            self._end(Failed("connection_lost", "The link went down."))
            return
        digest = effect.artifact.sha256
        here = self._came.get(digest, 0)
        if here >= len(data):
            self._came.pop(digest, None)
            self._keep(effect, data)
            return
        bandwidth = self._link.facts.bandwidth_bytes_s
        piece_bytes = min(len(data) - here, max(1, int(bandwidth * PIECE_S)))

        def arrived() -> None:
            self._came[digest] = here + piece_bytes
            self._pieces(effect, data)

        self._scope.after(piece_bytes / bandwidth, arrived)

    def _keep(self, effect: do.Fetch, data: bytes) -> None:
        target = path(effect.model, effect.slot, effect.file)
        try:
            self._disk.write(target, data)
            if self._disk.digest(target) != effect.artifact.sha256:
                self._disk.remove(target)
                raise PublisherError(
                    "digest_mismatch", f"{effect.file} does not have the signed digest."
                )
        except EdgefleetError as error:
            self._end(Failed(error.code, error.message))
            return
        self._end(happened.Fetched(model=effect.model, job=effect.job))

    def _carry(self, size_bytes: int, arrived: Action) -> None:
        """Send one message over the link. Of duplicates the first counts, as HTTP answers once."""
        times = self._link.arrivals(self._world.now(), size_bytes)
        if times:
            self._scope.at(min(times), arrived)
        else:
            self._end(Failed("connection_lost", "The link was down."))

    def _end(self, result: Fetched | Failed) -> None:
        self._scope.after(0.0, partial(self._done, result))
