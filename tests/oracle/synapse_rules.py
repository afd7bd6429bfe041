"""Synapse's rules without a Synapse: events, verdicts and resolutions on rooms in memory."""

from dataclasses import dataclass

import synapse.event_auth as event_auth  # first: the packages import each other
from synapse.api.errors import SynapseError
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS, StateResolutionVersions
from synapse.events import make_event_from_dict
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference

# How many of the newest events a resolution is given as not yet stored, where it is given any:
# Synapse walks every path among them.
IN_FLIGHT = 12


def run(coroutine):
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a coroutine of Synapse's waited")


class Clock:
    async def sleep(self, duration):
        pass


def chains(events, ids):
    """The events and all that they rest on."""
    found, stack = set(), list(ids)
    while stack:
        event_id = stack.pop()
        if event_id not in found:
            found.add(event_id)
            stack.extend(events[event_id].auth_event_ids())
    return found


@dataclass
class Store:
    """What state resolution and the checks read from, for the events of one room."""

    events: dict

    async def get_events(self, event_ids, *_, allow_rejected=False, **__):
        found = ((i, self.events[i]) for i in event_ids if i in self.events)
        return {i: e for i, e in found if allow_rejected or e.rejected_reason is None}

    async def get_auth_chain_difference(self, _, state_sets, conflicted, backwards):
        reached = [chains(self.events, ids) for ids in state_sets]
        difference = set.union(*reached) - set.intersection(*reached)
        if conflicted is None:
            return StateDifference(difference, None)
        # Events not stored lie above these, so paths from them go on upwards.
        below = chains(self.events, conflicted | (backwards or set()))
        above = set(conflicted)
        for event_id in self.events:  # in topological order
            if above.intersection(self.events[event_id].auth_event_ids()):
                above.add(event_id)
        return StateDifference(difference, above & below)


class Room:
    """A room as the generator printed it, read by Synapse."""

    def __init__(self, line):
        self.version = KNOWN_ROOM_VERSIONS[line["version"]]
        self.events = [
            make_event_from_dict(entry["pdu"], self.version, rejected_reason=entry["rejected"])
            for entry in line["events"]
        ]
        self.ids = [event.event_id for event in self.events]
        self.by_id = dict(zip(self.ids, self.events))
        self.store = Store(self.by_id)

    def state(self, numbers):
        events = (self.events[number] for number in numbers)
        return {(event.type, event.state_key): event.event_id for event in events}

    def resolve(self, sets, in_flight=0):
        """The resolved state. The newest `in_flight` events are not in the store."""
        room_id = self.events[0].room_id
        if self.version.state_res == StateResolutionVersions.V1:
            work = v1.resolve_events_with_store(
                room_id, self.version, sets, None, self.store.get_events
            )
        else:
            stored = self.ids[: len(self.ids) - in_flight]
            store = Store({i: self.by_id[i] for i in stored})
            newest = {i: self.by_id[i] for i in self.ids[len(stored) :]}
            work = v2.resolve_events_with_store(
                Clock(), room_id, self.version, sets, newest or None, store
            )
        return dict(run(work))

    def check_auth_events(self, event):
        return verdict(lambda: run(event_auth.check_state_independent_auth_rules(self.store, event)))

    def check(self, event, state):
        return verdict(lambda: event_auth.check_state_dependent_auth_rules(event, state))


def verdict(check):
    """None, or why the event is not allowed."""
    try:
        check()
    except SynapseError as error:
        return error.msg
    return None
