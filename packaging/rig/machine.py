"""The hardware of a simulated laptop: its power supplies, as files in a tree
that stands for /sys, and the kernel's messages when they change.

Package rig runs it, with umockdev's library loaded. It prints the root of the
tree, then does what each line of its input asks, as JSON, and answers each
with a line: "done", or what is wrong. It ends with its input, and takes the
tree along.
"""

import json
import sys

import gi

gi.require_version("UMockdev", "1.0")
from gi.repository import UMockdev  # noqa: E402


class Supplies:
    """What the kernel calls the class power_supply."""

    def __init__(self):
        self.testbed = UMockdev.Testbed.new()
        self.paths = {}

    def add(self, name, attributes):
        flat = [word for pair in attributes.items() for word in pair]
        properties = ["POWER_SUPPLY_NAME", name]
        self.paths[name] = self.testbed.add_device(
            "power_supply", name, None, flat, properties
        )

    def change(self, supplies):
        """Sets attributes of some supplies, and then tells of each.

        Whoever reads one when told of another sees both changed, as when a
        plug is pulled.
        """
        for name, attributes in supplies.items():
            for attribute, value in attributes.items():
                self.testbed.set_attribute(self.paths[name], attribute, value)
        for name in supplies:
            self.testbed.uevent(self.paths[name], "change")

    def remove(self, name):
        path = self.paths.pop(name)
        self.testbed.uevent(path, "remove")
        self.testbed.remove_device(path)


def main():
    supplies = Supplies()
    print(supplies.testbed.get_root_dir(), flush=True)
    for line in sys.stdin:
        try:
            request = json.loads(line)
            getattr(supplies, request["do"])(*request["with"])
            print("done", flush=True)
        except Exception as error:  # Whatever it is, the caller is told.
            print(repr(error), flush=True)


main()
