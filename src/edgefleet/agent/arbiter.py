"""The arbiter: which model may use the link, the disk, the prover and the trial next.

A **unit** is all models of one rollout on this device. The arbiter gives out what a device has
once:

=================  ==============================  =============================================
a unit wants       which needs                     and the arbiter gives it to
=================  ==============================  =============================================
manifest, bytes    the link, and room on the disk  the first unit whose models all fit together
proof              the prover, and memory          the first unit
a shadow phase     all its models staged, and no   the first model that needs one
                   unit in trial or going back
to ask for a start the same, and its shadow        every such unit; the hub admits one
                   phases over
to go back         nothing                         at once; it also stops a download or a proof
=================  ==============================  =============================================

Units that go back come first, then units that already have the link or the prover, then the rest
in the order of ``units``. A unit that does not fit on the disk gives the link to the next one. Room
is reserved for all models of a unit before the first byte: two units that each reserve model by
model could each wait for the other's room for ever.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from msgspec import Struct

from edgefleet.agent.table import IN_TRIAL, Stage


class Act(StrEnum):
    """An action on one model."""

    MANIFEST = "manifest"  # download the manifest
    BYTES = "bytes"  # download the files
    PROVE = "prove"
    ASK = "ask"  # ask the hub for admission
    SHADOW = "shadow"  # begin the shadow phase
    PAUSE = "pause"  # stop the download or the proof: a unit that goes back needs its place
    WAIT = "wait"  # stop asking, or end the shadow: another unit is in trial or goes back
    NO_ROOM = "no_room"  # wait until the disk has room
    DROP = "drop"  # remove the model's leftover files, then measure the disk again


class Member(Struct, frozen=True, kw_only=True):
    """One model of a unit. ``needs_bytes`` is known after the manifest."""

    model: str
    stage: Stage
    busy: bool = False  # its download or proof is in progress, or waits for a retry
    waits: bool = False  # QUEUED: does not want the link yet
    needs_shadow: bool = False  # STAGED: its shadow phase comes before its start
    needs_bytes: int = 0
    needs_mib: int = 0  # memory of its proof


class Unit(Struct, frozen=True, kw_only=True):
    """The models of one rollout on this device. ``returns`` is true for a revert of the hub."""

    rollout: str
    members: tuple[Member, ...]
    returns: bool = False

    def any_in(self, *stages: Stage) -> bool:
        return any(member.stage in stages for member in self.members)

    @property
    def in_trial(self) -> bool:
        return not self.returns and self.any_in(*IN_TRIAL)

    @property
    def goes_back(self) -> bool:
        return self.any_in(Stage.REVERTING) or (self.returns and self.any_in(*IN_TRIAL))


class Room(Struct, frozen=True, kw_only=True):
    """The free disk and memory; None is unknown, and counts as enough.

    ``leftovers`` are models with removable files in their idle slot: those of a cancelled attempt,
    or of one that waits for room. A confirmed release is never one of them: it is a way back.
    """

    free_bytes: int | None = None
    free_mib: int | None = None
    leftovers: tuple[str, ...] = ()


def decide(units: Sequence[Unit], room: Room) -> tuple[tuple[Act, str], ...]:
    """The actions for ``units``, which are in order of precedence, each with its model."""
    if len(units) == 1 and len(units[0].members) == 1:
        return _decide_alone(units[0].members[0], room)
    return decide_among(units, room)


def decide_among(units: Sequence[Unit], room: Room) -> tuple[tuple[Act, str], ...]:
    """As ``decide``, by the rules for any number of units."""
    return (*_link(units, room), *_prover(units, room), *_trial(units))


def _decide_alone(member: Member, room: Room) -> tuple[tuple[Act, str], ...]:
    """The actions for the only model with an attempt: the same, found with less work."""
    stage, model = member.stage, member.model
    if member.busy or member.waits:
        return ()
    if stage is Stage.QUEUED or stage is Stage.MANIFEST:
        return ((Act.MANIFEST, model),)
    if stage is Stage.FETCHING:
        if room.free_bytes is None or member.needs_bytes <= room.free_bytes:
            return ((Act.BYTES, model),)
        leftovers = [leftover for leftover in room.leftovers if leftover != model][:1]
        return ((Act.NO_ROOM, model), *[(Act.DROP, leftover) for leftover in leftovers])
    if stage is Stage.PROVING and (room.free_mib is None or member.needs_mib <= room.free_mib):
        return ((Act.PROVE, model),)
    if stage is Stage.STAGED:
        return ((Act.SHADOW if member.needs_shadow else Act.ASK, model),)
    return ()


def _link(units: Sequence[Unit], room: Room) -> Iterator[tuple[Act, str]]:
    """One download at a time. All manifests of a unit come before its first file."""
    holder = next((unit for unit in units if any(map(_on_link, unit.members))), None)
    for unit in sorted(units, key=lambda unit: (not unit.returns, unit is not holder)):
        members = [
            member
            for member in unit.members
            if member.stage in (Stage.QUEUED, Stage.MANIFEST, Stage.FETCHING)
        ]
        if not members or any(member.waits for member in members):
            continue
        unopened = [member for member in members if member.stage is not Stage.FETCHING]
        if not unopened and not _has_begun(unit) and not _fits(unit, room):
            yield from ((Act.NO_ROOM, member.model) for member in members)
            for leftover in _removable(unit, units, room)[:1]:
                yield Act.DROP, leftover
            continue
        if holder is not None and holder is not unit:
            yield from ((Act.PAUSE, member.model) for member in holder.members if _on_link(member))
        if not any(map(_on_link, members)):
            act = Act.MANIFEST if unopened else Act.BYTES
            yield act, (unopened or members)[0].model
        return


def _prover(units: Sequence[Unit], room: Room) -> Iterator[tuple[Act, str]]:
    """One proof at a time."""
    holder = next((unit for unit in units if any(map(_on_prover, unit.members))), None)
    for unit in sorted(units, key=lambda unit: (not unit.returns, unit is not holder)):
        members = [member for member in unit.members if member.stage is Stage.PROVING]
        if not members or (room.free_mib is not None and members[0].needs_mib > room.free_mib):
            continue
        if holder is not None and holder is not unit:
            yield from (
                (Act.PAUSE, member.model) for member in holder.members if _on_prover(member)
            )
        if not any(map(_on_prover, members)):
            yield Act.PROVE, members[0].model
        return


def _trial(units: Sequence[Unit]) -> Iterator[tuple[Act, str]]:
    """No unit asks for a start, or has a shadow, while one is in trial or goes back.

    One model at a time has a shadow.
    """
    is_free = not any(unit.in_trial or unit.goes_back for unit in units)
    has_shadow = any(unit.any_in(Stage.SHADOWING) for unit in units)
    for unit in units:
        waits_for_shadow = any(member.needs_shadow for member in unit.members)
        for member in unit.members:
            if not is_free and member.stage in (Stage.ANNOUNCING, Stage.SHADOWING):
                yield Act.WAIT, member.model
            elif not is_free or member.stage is not Stage.STAGED or not _is_staged(unit):
                continue
            elif not waits_for_shadow:
                yield Act.ASK, member.model
            elif member.needs_shadow and not has_shadow:
                has_shadow = True
                yield Act.SHADOW, member.model


def _is_staged(unit: Unit) -> bool:
    return all(member.stage in (Stage.STAGED, Stage.ANNOUNCING) for member in unit.members)


def _has_begun(unit: Unit) -> bool:
    """Whether room was reserved: a file is being downloaded, or all files of a model are there."""
    return any(
        (member.stage is Stage.FETCHING and member.busy)
        or member.stage in (Stage.PROVING, Stage.STAGED, Stage.SHADOWING, Stage.ANNOUNCING)
        for member in unit.members
    )


def _removable(unit: Unit, units: Sequence[Unit], room: Room) -> list[str]:
    """Models whose leftover files may make room for ``unit``: no unit before it, nor itself."""
    first = units[: units.index(unit) + 1]
    kept = {member.model for one in first for member in one.members}
    return [model for model in room.leftovers if model not in kept]


def _fits(unit: Unit, room: Room) -> bool:
    needed = sum(member.needs_bytes for member in unit.members)
    return room.free_bytes is None or needed <= room.free_bytes


def _on_link(member: Member) -> bool:
    return member.busy and member.stage in (Stage.MANIFEST, Stage.FETCHING)


def _on_prover(member: Member) -> bool:
    return member.busy and member.stage is Stage.PROVING
