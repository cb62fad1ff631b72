"""Devices: claims, enrolment, credentials, and the last reported state of each device.

The engine's fleet has the columns that decide rollouts. This module adds the data that only the hub
needs, and keeps both consistent with the store.
"""

from array import array
from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec.structs import replace

from edgefleet.base.clock import Clock
from edgefleet.base.entropy import Entropy
from edgefleet.base.errors import DeviceError, OperatorError
from edgefleet.base.ids import check_name
from edgefleet.hub.actors import line_by
from edgefleet.hub.agent_versions import AgentVersions
from edgefleet.hub.known_credentials import KnownCredentials
from edgefleet.hub.label_owners import LabelOwners, check_labels
from edgefleet.hub.limits import NEW_KINDS_PER_DEVICE_DAY, PROFILES, STANDINGS_PER_WRITE
from edgefleet.hub.quota import Quota
from edgefleet.hub.registry import Registry
from edgefleet.hub.shared_facts import SharedFacts
from edgefleet.hub.store.records import StoredDevice, StoredStanding
from edgefleet.hub.store.sqlite import SqliteStore
from edgefleet.protocol.device import CheckIn, EnrolRequest, Facts
from edgefleet.protocol.operator import ClaimRequest, Claims
from edgefleet.protocol.restored import ReenrolRequest
from edgefleet.protocol.version import check_protocol
from edgefleet.rollout.fleet.columns import Mask
from edgefleet.rollout.fleet.fleet import Fleet
from edgefleet.rollout.fleet.reports import Report
from edgefleet.security.credentials import (
    DeviceIdentity,
    bearer,
    issue_device_token,
    new_token,
    read_device_header,
    token_digest,
)
from edgefleet.security.principals import Principal

_DAY_S: Final = 86_400.0


class Devices:
    """All devices, in memory. Enrolments and new facts are durable before they appear here."""

    def __init__(
        self,
        store: SqliteStore,
        fleet: Fleet,
        registry: Registry,
        *,
        secret: bytes,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._registry = registry
        self._secret = secret
        self._clock = clock
        self._entropy = entropy
        self._enrolled_at = array("d")
        self._facts = SharedFacts()
        self._new_kinds = Quota(
            NEW_KINDS_PER_DEVICE_DAY, clock, period_s=_DAY_S, text="new kinds of facts this day"
        )
        self._agents = AgentVersions()
        self.label_owners = LabelOwners()
        self._credential_names: dict[int, str] = {}  # of renamed and removed devices
        self.known_credentials = KnownCredentials()

    def load(self) -> Mapping[int, float]:
        """Restore all devices from the store.

        Returns the rows of those that were removed, and when: their removal is to be repeated.
        """
        removed: dict[int, float] = {}
        for device in self._store.reader.load_devices():
            self._add(device)
            if device.removed_at is not None:
                removed[device.row] = device.removed_at
                self._forget(device.row)
        for at in self._store.reader.load_standings():
            if at.row not in removed:
                self._fleet.restore(at.row, Report(at.last_seen, at.seq, at.protocol, at.models))
        return removed

    # Enrolment.

    async def claims(self, request: ClaimRequest, by: Principal) -> Claims:
        """Make one-use claims. Raises OperatorError ``bad_request``."""
        check_labels(request.labels)
        now = self._clock.now()
        claims = tuple(new_token(self._entropy, "efc") for _ in range(request.count))
        expires_at = now + request.valid_s
        line = line_by(by, "claim", "fleet", f"{request.count} for {request.valid_s:g} s")
        await self._store.save_claims(
            [token_digest(claim) for claim in claims], request.labels, expires_at, line, now
        )
        return Claims(claims=claims, expires_at=expires_at)

    async def enrol(self, request: EnrolRequest) -> DeviceIdentity:
        """Exchange a claim for a row in the fleet.

        A device that repeats its enrolment, with the same claim and the same key, is the same
        device: its answer was lost.

        Raises DeviceError ``protocol_unsupported``, ``claim_unknown``, ``claim_used``,
        ``claim_expired`` or ``device_name_taken``, OperatorError ``name_invalid`` or
        ``bad_request``.
        """
        check_protocol(request.protocol)
        digest = token_digest(request.claim)
        key_digest = token_digest(request.key) if request.key else ""
        if (again := await self._enrolled_before(digest, key_digest)) is not None:
            return again
        self._store.reader.check_claim(digest, self._clock.now())
        check_name(request.name, field="name")
        self._check_profile(request.facts.profile)
        check_labels(request.labels)
        try:
            device = await self._store.enrol(
                digest,
                request.name,
                request.labels,
                replace(request.facts, labels=None),
                now=self._clock.now(),
                committed=self._add,
                key_digest=key_digest,
            )
        except DeviceError:
            if (again := await self._enrolled_before(digest, key_digest)) is None:
                raise
            return again  # the first request was being stored
        return DeviceIdentity(device.row, device.name)

    async def _enrolled_before(self, digest: str, key_digest: str) -> DeviceIdentity | None:
        """The identity that the claim gave to this key. None for another key."""
        row = self._store.reader.enrolled_with(digest, key_digest)
        if row is not None and row >= len(self._fleet):
            await self._store.settled()  # durable, and not in memory yet
        if row is None or self._fleet.is_removed(row):
            return None
        return DeviceIdentity(row, self._credential_names.get(row, self._fleet.name(row)))

    def identity_of(self, authorization: str) -> DeviceIdentity:
        """The row and the name in a credential of this hub, known or not. Raises DeviceError."""
        return read_device_header(self._secret, authorization)

    async def enrol_again(self, name: str, request: ReenrolRequest) -> DeviceIdentity:
        """Enrol a device of which the hub lost its record. Raises DeviceError or OperatorError."""
        check_protocol(request.protocol)
        self._check_profile(request.facts.profile)
        check_labels(request.labels)
        device = await self._store.enrol(
            None,
            name,
            request.labels,
            replace(request.facts, labels=None),
            now=self._clock.now(),
            committed=self._add,
        )
        return DeviceIdentity(device.row, device.name)

    def credential(self, identity: DeviceIdentity) -> str:
        """The token that the device sends with every later request."""
        return issue_device_token(self._secret, identity)

    def identify(self, authorization: str) -> int:
        """The row of the device that sent this header. Raises DeviceError.

        A credential that was verified before is not verified again, see ``forget_credential``.
        """
        token = bearer(authorization).encode()
        known = self.known_credentials.row(token)
        if known is not None:
            return known
        row = self._verified(authorization)
        self.known_credentials.add(token, row)
        return row

    def forget_credential(self, row: int) -> None:
        """Verify the credential of a device anew at its next request.

        Check-ins, downloads and all other requests of devices find the device by the same table of
        verified credentials, so this is the one call that makes a refusal take effect. Call it
        after each change for which ``identify`` refuses the device from then on: its removal, or
        the revocation of its credential. The change must be in memory before. A request that was
        identified before the call is answered; connections stay open, and the next request on each
        of them is verified.
        """
        self.known_credentials.forget(row)

    def _verified(self, authorization: str) -> int:
        """``identify`` of a credential that is not known yet."""
        identity = read_device_header(self._secret, authorization)
        if self._fleet.row(identity.name) == identity.row:
            return identity.row
        if self._credential_names.get(identity.row) != identity.name:
            raise DeviceError(
                "device_unknown",
                f"This hub made the credential of {identity.name}, and does not know the device.",
            )
        if self._fleet.is_removed(identity.row):
            raise DeviceError("device_removed", f"{identity.name} was removed from the fleet.")
        return identity.row

    # Changes by an operator, which are durable.

    def rename(self, row: int, name: str) -> None:
        """Give the device another name. Its credential stays valid."""
        self._credential_names.setdefault(row, self._fleet.name(row))
        self._fleet.rename(row, name)

    def prepare_removal(self, row: int) -> None:
        """Recognise the credential of a device that is removed next, and free what it used."""
        self._credential_names.setdefault(row, self._fleet.name(row))
        self._forget(row)

    def _forget(self, row: int) -> None:
        """Free the places that a removed device had in the tables of the fleet."""
        self._facts.forget(row)
        self._agents.forget(row)
        self.label_owners.forget(row)

    # Reports.

    def known(self, check_in: CheckIn) -> CheckIn:
        """The check-in without models and releases that this hub has not published.

        So a device cannot invent names.
        """
        knows = self._registry.knows
        if not check_in.models:
            if knows(check_in.model, check_in.release):
                return check_in
            return replace(check_in, model=None, release=None)
        models = tuple(
            report if knows(report.model, report.release) else replace(report, release=None)
            for report in check_in.models
            if report.model in self._registry.models()
        )
        return replace(check_in, models=models)

    async def update_facts(self, row: int, facts: Facts) -> None:
        """Store changed facts.

        Raises OperatorError ``name_invalid`` or ``bad_request``, DeviceError ``overloaded`` after
        more kits and label sets that no device had before than a device may bring in a day.
        Labels that are not valid, or for which there is no room, are not taken.
        """
        owners, labels = self.label_owners, dict(facts.labels or ())
        facts = replace(facts, labels=None) if facts.labels is not None else facts
        if not labels or labels == owners.by_device(row) or not owners.takes(row, labels):
            labels = {}
        if facts == self._facts[row] and not labels:
            return
        self._check_profile(facts.profile)
        self._new_kinds.check(row)

        def committed(_none: None) -> None:
            if self._fleet.is_removed(row):
                return
            before = self._fleet.kit_count + self._fleet.label_set_count
            self._set_facts(row, facts)
            if labels:
                self._fleet.set_labels(row, owners.set(row, owners.by_operator(row), labels))
            if self._fleet.kit_count + self._fleet.label_set_count > before:
                self._new_kinds.count(row, 1)

        await self._store.save_facts(row, facts, labels or None, committed)

    def set_labels(self, row: int, labels: Mapping[str, str]) -> None:
        """Replace the labels of the operator, which are durable."""
        if self._fleet.is_removed(row):
            return
        owners = self.label_owners
        self._fleet.set_labels(row, owners.set(row, labels, owners.by_device(row)))

    async def flush(self) -> None:
        """Store the changed standings, ``STANDINGS_PER_WRITE`` at a time."""
        while len(rows := np.flatnonzero(self._fleet.changed)[:STANDINGS_PER_WRITE]):
            self._fleet.changed[rows] = 0
            try:
                await self._store.save_standings([self._standing(row) for row in rows.tolist()])
            except BaseException:
                self._fleet.changed[rows] = 1
                raise

    def facts(self, row: int) -> Facts:
        return self._facts[row]

    def with_agent(self, version: str) -> Mask:
        """One truth value per row: whether the device's agent has this version."""
        return self._agents.rows_with(version)

    def enrolled_at(self, row: int) -> float:
        return self._enrolled_at[row]

    def _check_profile(self, profile: str) -> None:
        check_name(profile, field="facts.profile")
        if len(self._facts.profiles) >= PROFILES and profile not in self._facts.profiles:
            raise OperatorError(
                "bad_request",
                f"Profile {profile} would be one above the limit of {PROFILES} profiles.",
                field="facts.profile",
                hint="Use one of the fleet's profiles: see `edgefleet fleet show`.",
            )

    def _standing(self, row: int) -> StoredStanding:
        return StoredStanding(row, *self._fleet.report(row))

    def _add(self, device: StoredDevice) -> None:
        facts = device.facts
        labels = self.label_owners.add(device.labels, device.own_labels)
        row = self._fleet.add(
            device.name,
            facts.profile,
            labels,
            runtimes=facts.runtimes,
            memory_mib=facts.memory_mib,
            models_memory_mib=facts.models_memory_mib,
            versions=[(one.runtime, one.version) for one in facts.runtime_versions],
            comparisons=facts.comparisons,
            datatypes=facts.datatypes,
            hashed=device.enrolled_as or "",
        )
        if row != device.row:
            msg = f"device {device.name}: row {device.row} in the store, {row} in the fleet"
            raise AssertionError(msg)
        self._enrolled_at.append(device.enrolled_at)
        self._facts.add(facts)
        self._agents.set(row, facts.agent_version)
        self._fleet.disk_faults.set(row, facts.disk_fault)
        if device.enrolled_as is not None:
            self._credential_names[row] = device.enrolled_as.partition("/")[0]

    def _set_facts(self, row: int, facts: Facts) -> None:
        self._facts.set(row, facts)
        self._agents.set(row, facts.agent_version)
        self._fleet.disk_faults.set(row, facts.disk_fault)
        self._fleet.set_facts(
            row,
            facts.profile,
            self._fleet.labels(row),
            runtimes=facts.runtimes,
            memory_mib=facts.memory_mib,
            models_memory_mib=facts.models_memory_mib,
            versions=[(one.runtime, one.version) for one in facts.runtime_versions],
            comparisons=facts.comparisons,
            datatypes=facts.datatypes,
        )
