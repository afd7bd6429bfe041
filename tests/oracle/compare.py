"""Reads rooms from exeunt-graphs and compares its verdicts and states with Synapse's."""

import json
import logging
import sys
import time
from collections import Counter

from synapse_rules import IN_FLIGHT, Room

MAX_SHOWN = 20
PROGRESS = 1000  # rooms


class Comparison:
    def __init__(self):
        names = ("rooms", "events", "rejected", "resolutions", "differences")
        self.counts = Counter(dict.fromkeys(names, 0))
        self.by_version = Counter()
        self.shown = 0

    def differ(self, line, what, ours, theirs):
        self.counts["differences"] += 1
        if self.shown < MAX_SHOWN:
            self.shown += 1
            print(f"DIFFERENT version {line['version']}, seed {line['seed']}: {what}")
            print(f"  ours:   {ours}\n  theirs: {theirs}", flush=True)

    def room(self, line):
        room = Room(line)
        self.counts["rooms"] += 1
        self.by_version[line["version"]] += 1
        for entry, event in zip(line["events"], room.events):
            self.event(line, room, entry, event)
        for number, entry in enumerate(line["resolutions"]):
            self.resolution(line, room, number, entry)

    def event(self, line, room, entry, event):
        self.counts["events"] += 1
        self.counts["rejected"] += entry["rejected"] is not None
        if event.event_id != entry["event_id"]:
            self.differ(line, "event id", entry["event_id"], event.event_id)
        ours, theirs = entry["checks"], {"auth_events": room.check_auth_events(event)}
        if event.type != "m.room.create":  # the rules for these ask no state
            before = (room.events[number] for number in entry["before"])
            theirs["before"] = room.check(event, before)
        # What an event that cites the wrong events may do by them is not defined.
        if ours["auth_events"] is None and theirs["auth_events"] is None:
            cited = (room.by_id[event_id] for event_id in event.auth_event_ids())
            theirs["cited"] = room.check(event, cited)
        for check, theirs in theirs.items():
            if (ours[check] is None) != (theirs is None):
                self.differ(line, f"{check} of {describe(event)}", ours[check], theirs)

    def resolution(self, line, room, number, entry):
        self.counts["resolutions"] += 1
        sets = [room.state(numbers) for numbers in entry["sets"]]
        ours = room.state(entry["resolved"])
        for in_flight in (0, IN_FLIGHT):
            theirs = room.resolve(sets, in_flight)
            if ours == theirs:
                continue
            for key in sorted(ours.keys() | theirs.keys()):
                if ours.get(key) != theirs.get(key):
                    what = f"resolution {number}, {key}, of {choices(room, sets, key)}"
                    self.differ(line, what, name(room, ours.get(key)), name(room, theirs.get(key)))


def describe(event):
    text = f"{event.event_id} {event.type} by {event.sender}"
    if event.is_state():
        text += f" for {event.state_key!r}"
    return f"{text} {json.dumps(dict(event.content), default=dict)}"


def name(room, event_id):
    return event_id and f"#{room.ids.index(event_id)} {describe(room.by_id[event_id])}"


def choices(room, sets, key):
    ids = (state.get(key) for state in sets)
    return [None if i is None else f"#{room.ids.index(i)}" for i in ids]


def lines(stream):
    for text in stream:
        if not text.endswith("\n"):
            return  # cut off
        yield json.loads(text)


def summary(counts):
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def main():
    logging.disable(logging.CRITICAL)
    comparison, start = Comparison(), time.monotonic()
    finished = False
    for line in lines(sys.stdin):
        if "skipped" in line:
            print(f"skipped: room version {line['skipped']}, which this server does not know")
        elif "end" in line:
            finished = line["end"] == comparison.counts["rooms"] > 0
        else:
            comparison.room(line)
            if comparison.counts["rooms"] % PROGRESS == 0:
                print(summary(comparison.counts), flush=True)
    if not finished:
        print("the generator did not finish")
    versions = sorted(comparison.by_version.items(), key=lambda item: int(item[0]))
    print("rooms by version:", ", ".join(f"{v}: {count}" for v, count in versions))
    print(summary(comparison.counts))
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if finished and not comparison.counts["differences"] else 1


if __name__ == "__main__":
    sys.exit(main())
