"""Selections of devices for a list: by labels, release, phase, state, or a part of the name."""

import numpy as np

from edgefleet.base.errors import OperatorError
from edgefleet.hub.cursors import read_choice
from edgefleet.hub.devices import Devices
from edgefleet.protocol.device import Phase
from edgefleet.protocol.device_commands import SEARCH_CHARS, STANDINGS, STATES, DeviceFilter
from edgefleet.rollout.engine import Engine
from edgefleet.rollout.evidence.ledger import DeviceStanding
from edgefleet.rollout.fleet.columns import Mask, Rows
from edgefleet.rollout.fleet.runs import parse_runs
from edgefleet.rollout.fleet.selector import parse
from edgefleet.rollout.lifecycle.state import OPEN


class DeviceQueries:
    """Reads the engine and changes nothing."""

    def __init__(self, engine: Engine, devices: Devices) -> None:
        self._engine = engine
        self._devices = devices

    def rows(self, only: DeviceFilter, now: float) -> Rows:
        """The devices that ``only`` selects, ascending.

        Raises OperatorError ``selector_invalid``, ``name_invalid``, ``bad_request`` or
        ``not_found``.
        """
        fleet = self._engine.fleet
        mask = fleet.selected(parse(only.selector))
        if only.runs:
            mask &= fleet.running(parse_runs(only.runs))
        if only.profile:
            mask &= fleet.with_kit(lambda kit: kit.profile == only.profile)
        if only.runtime:
            mask &= fleet.with_kit(lambda kit: only.runtime in kit.runtimes)
        if only.agent:
            mask &= self._devices.with_agent(only.agent)
        if only.rollout or only.standing:
            mask &= self._reported(only.rollout, only.standing)
        if only.phase:
            phase = Phase(read_choice(only.phase, tuple(Phase), "phase"))
            mask &= fleet.models.in_phase(len(fleet), phase)
        for state in only.states:
            mask &= self._in_state(state, now)
        rows = np.flatnonzero(mask)
        if only.search:
            rows = self._found(rows, only.search)
        return rows

    def quarantined_count(self) -> int:
        """The number of devices that are quarantined for a model, or for several."""
        return int(np.count_nonzero(self._quarantined()))

    def _in_state(self, state: str, now: float) -> Mask:
        fleet = self._engine.fleet
        match state:
            case "online" | "offline":
                online = fleet.all_online(now)
                return online if state == "online" else ~online
            case "quarantined":
                return self._quarantined()
            case "copied":
                return self._only(fleet.copies.rows)
            case "ahead":
                return self._only(self._engine.ahead.blocked_rows("", ""))
            case "disk_fault":
                return self._only(fleet.disk_faults.rows())
            case "failed":
                return self._failed()
            case "serving_down" | "serving_unstable":
                down = state == "serving_down"
                return self._only(fleet.serving.rows(is_down=down)) & fleet.all_online(now)
            case _:
                raise OperatorError(
                    "bad_request",
                    f"{state!r} is not a state. The states are {', '.join(STATES)}.",
                    field="state",
                )

    def _reported(self, rollout: str, standing: str) -> Mask:
        """Devices with a report to the rollout, or with this standing in it."""
        if not rollout:
            raise OperatorError(
                "bad_request", "A standing is one in a rollout: name it.", field="rollout"
            )
        named = read_choice(standing, STANDINGS, "standing")
        wanted = [DeviceStanding[named.upper()]] if named else list(DeviceStanding)[1:]
        return self._only(self._engine.rollout(rollout).ledger.rows(*wanted))

    def _only(self, rows: Rows) -> Mask:
        found: Mask = np.zeros(len(self._engine.fleet), np.bool_)
        found[rows] = True
        return found

    def _quarantined(self) -> Mask:
        found: Mask = np.zeros(len(self._engine.fleet), np.bool_)
        for model in self._engine.quarantine_models():
            found[self._engine.quarantined_rows(model)] = True
        return found

    def _failed(self) -> Mask:
        """Devices that failed or refused a release of an open rollout, or of the newest one."""
        found: Mask = np.zeros(len(self._engine.fleet), np.bool_)
        newest: set[str] = set()
        for state in self._engine.states():
            is_newest = state.started_at is not None and state.spec.model not in newest
            if is_newest:
                newest.add(state.spec.model)
            if is_newest or state.status in OPEN:
                ledger = self._engine.rollout(state.id).ledger
                found[ledger.rows(DeviceStanding.FAILED, DeviceStanding.REFUSED)] = True
        return found

    def _found(self, rows: Rows, text: str) -> Rows:
        if len(text) > SEARCH_CHARS:
            raise OperatorError(
                "bad_request", f"The text is longer than {SEARCH_CHARS} characters.", field="search"
            )
        fleet, part = self._engine.fleet, text.lower()
        numbers = np.flatnonzero(np.bincount(fleet.label_ids[rows])).tolist() if len(rows) else []
        labelled = {
            number
            for number in numbers
            if any(part in value.lower() for value in fleet.label_set(number).values())
        }
        found = (
            row
            for row in rows.tolist()
            if part in fleet.name(row).lower() or fleet.label_id(row) in labelled
        )
        return np.fromiter(found, np.int64)
