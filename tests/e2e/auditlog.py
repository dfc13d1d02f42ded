# SPDX-License-Identifier: Apache-2.0
"""The audit log as the tests read it."""
import contextlib
import json

from host import wait_for


def field(event, name):
    """A field of an audit line by its ECS name, whether the line nests objects or has dotted keys."""
    if name in event:
        return event[name]
    value = event
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value


class Audit:
    """The audit log, read as it grows."""

    def __init__(self, path):
        self.path = path
        self._offset = 0
        self.events = []
        self.bad = []

    def poll(self):
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as f:
            f.seek(self._offset)
            data = f.read()
            whole = data[:data.rfind(b"\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.bad.append(line)
        return self.events

    def mark(self):
        return len(self.poll())

    def find(self, since=0, where=None, **fields):
        """Events at or after `since` with these fields; in names, __ stands for a dot. A value may be a predicate; of a
        field that is an array, an element is enough."""
        def matches(event):
            for name, want in fields.items():
                have = field(event, name.replace("__", "."))
                if callable(want):
                    if not want(have):
                        return False
                elif have != want and not (isinstance(have, list) and want in have):
                    return False
            return where is None or where(event)

        return [e for e in self.poll()[since:] if matches(e)]

    def wait(self, since=0, seconds=5.0, where=None, **fields):
        """The first such event."""
        return wait_for(lambda: self.find(since, where, **fields), f"an audit line with {fields}", seconds)[0]
