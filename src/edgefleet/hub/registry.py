"""Trusted publisher keys and the published releases, which are immutable."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgefleet.base.clock import Clock
from edgefleet.base.errors import OperatorError, PublisherError
from edgefleet.base.ids import check_name
from edgefleet.hub.actors import line_by
from edgefleet.hub.backup.record import artifacts_of
from edgefleet.hub.blobs import Blobs
from edgefleet.hub.file_reader import FileReader
from edgefleet.hub.limits import TRUSTED_KEYS
from edgefleet.hub.release_check import check_release
from edgefleet.hub.store.records import StoredRelease
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.operator import TrustedKeys, TrustKey
from edgefleet.protocol.release import Envelope, ReleaseManifest
from edgefleet.security.principals import Principal
from edgefleet.security.signing import OpenedManifest, PublicKey, open_manifest


@dataclass(frozen=True, slots=True)
class RegisteredRelease:
    """A published release."""

    manifest: ReleaseManifest
    manifest_sha256: str
    envelope: Envelope
    signed_by: tuple[str, ...]
    published_at: float


class Registry:
    """All keys and releases, in memory. Changes are durable before they appear here."""

    def __init__(
        self,
        store: SqliteStore,
        blobs: Blobs,
        clock: Clock,
        *,
        reader: FileReader,
        published: Callable[[ReleaseManifest, str], None],
        interface_changes: Callable[[ReleaseManifest], tuple[str, ...]],
    ) -> None:
        """``published`` is called with each release and its manifest's digest, also by ``load``.

        ``interface_changes`` compares a release with those that devices run today.
        """
        self._store = store
        self._blobs = blobs
        self._reader = reader
        self._clock = clock
        self._published = published
        self._interface_changes = interface_changes
        self._trusted: dict[str, PublicKey] = {}
        self._key_names: dict[str, str] = {}
        self._by_digest: dict[str, RegisteredRelease] = {}
        self._models: dict[str, dict[str, RegisteredRelease]] = {}

    def load(self) -> None:
        """Restore keys and releases from the store, and verify every signature again."""
        for key in self._store.reader.load_trust():
            self._accept_key(key, PublicKey.from_text(key.public_key))
        for stored in self._store.reader.load_releases():
            opened = open_manifest(stored.envelope, self._trusted)
            self._accept(stored, opened.manifest)

    # Keys.

    def keys(self) -> TrustedKeys:
        """The trusted publisher keys."""
        return TrustedKeys(
            keys=tuple(
                TrustKey(name=self._key_names[keyid], public_key=key.text)
                for keyid, key in sorted(self._trusted.items())
            )
        )

    async def trust(self, key: TrustKey, by: Principal) -> TrustedKeys:
        """Accept releases that ``key`` signs. Raises OperatorError ``setting_invalid``."""
        check_name(key.name, field="name")
        public = PublicKey.from_text(key.public_key)
        if len(self._trusted) >= TRUSTED_KEYS and public.keyid not in self._trusted:
            raise OperatorError(
                "bad_request", f"The hub trusts {TRUSTED_KEYS} keys, which is the limit."
            )
        await self._store.save_trust(
            public.keyid,
            TrustKey(name=key.name, public_key=public.text),
            line_by(by, "trust", f"key/{public.keyid}", key.name),
            self._clock.now(),
            lambda _none: self._accept_key(key, public),
        )
        return self.keys()

    # Releases.

    async def publish(self, envelope: Envelope, by: Principal) -> RegisteredRelease:
        """Check a release, then store it permanently.

        Publishing the same release again has no effect. Raises PublisherError if the release is
        invalid, or OperatorError ``name_invalid``. After an error nothing is changed.
        """
        opened = open_manifest(envelope, self._trusted)
        known = self._by_digest.get(opened.digest)
        if known is not None:
            return known
        with self._blobs.used(artifact.sha256 for artifact in artifacts_of(opened.manifest)):
            return await self._publish(envelope, opened, by)

    async def _publish(
        self, envelope: Envelope, opened: OpenedManifest, by: Principal
    ) -> RegisteredRelease:
        manifest = opened.manifest
        await check_release(manifest, self._blobs, self._reader)
        changes = self._interface_changes(manifest)
        if changes and not manifest.changes_interface:
            raise PublisherError(
                "release_interface_changed", " ".join(changes), field="changes_interface"
            )
        stored = StoredRelease(
            opened.digest,
            manifest.model,
            manifest.release,
            envelope,
            opened.signed_by,
            self._clock.now(),
        )
        about = f"release/{manifest.model}/{manifest.release}"
        await self._store.save_release(
            stored,
            line_by(by, "publish", about, opened.digest),
            lambda fresh: self._accept(stored, manifest) if fresh else None,
        )
        return self._by_digest[opened.digest]

    def manifests(self) -> Iterator[ReleaseManifest]:
        """The manifests of all releases."""
        return (published.manifest for published in self._by_digest.values())

    def models(self) -> Mapping[str, Mapping[str, RegisteredRelease]]:
        """Model -> release -> published release, oldest first."""
        return self._models

    def release(self, model: str, release: str) -> RegisteredRelease:
        """Raises OperatorError ``not_found``."""
        found = self._models.get(model, {}).get(release)
        if found is None:
            raise OperatorError("not_found", f"There is no release {model} {release}.")
        return found

    def knows(self, model: str | None, release: str | None) -> bool:
        """Whether this hub has published the release."""
        return model is not None and release in self._models.get(model, {})

    def manifest(self, digest: str) -> Envelope:
        """The signed manifest whose payload has this digest. Raises OperatorError ``not_found``."""
        found = self._by_digest.get(digest)
        if found is None:
            raise OperatorError("not_found", f"There is no manifest {digest}.", field="sha256")
        return found.envelope

    def _accept_key(self, key: TrustKey, public: PublicKey) -> None:
        self._trusted[public.keyid] = public
        self._key_names[public.keyid] = key.name

    def _accept(self, stored: StoredRelease, manifest: ReleaseManifest) -> None:
        published = RegisteredRelease(
            manifest,
            stored.manifest_sha256,
            stored.envelope,
            stored.signed_by,
            stored.published_at,
        )
        self._by_digest[stored.manifest_sha256] = published
        self._models.setdefault(stored.model, {})[stored.release] = published
        self._published(manifest, stored.manifest_sha256)
