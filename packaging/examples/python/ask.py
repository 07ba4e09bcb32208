#!/usr/bin/python3
"""Asks joulemux over D-Bus, and prints the answer as it comes.

    ask.py "Why is the sky blue?" [OPTION=VALUE...]

Options are those of io.github.joulemux.Inference1, such as class=background or
max_power_watts=15. Needs python3-dbus.

The answer comes on a pipe, not in messages of the bus: after the text a byte
says whether it is whole, and where it is not, why.
"""

import codecs
import os
import sys

import dbus

EOT, CAN = b"\x04", b"\x18"


def option(word):
    """Returns an option as joulemux wants it: numbers and flags as what they are."""
    name, _, value = word.partition("=")
    if value in ("true", "false"):
        return name, dbus.Boolean(value == "true", variant_level=1)
    for kind in int, float:
        try:
            return name, kind(value)
        except ValueError:
            pass
    return name, value


def ask(prompt, options, write):
    """Has write take the answer piece by piece; returns where it ran."""
    proxy = dbus.SessionBus().get_object("io.github.joulemux.Inference1", "/io/github/joulemux/Inference1")
    inference = dbus.Interface(proxy, "io.github.joulemux.Inference1")
    source, sink = os.pipe()
    try:
        messages = dbus.Array([{"role": "user", "content": prompt}], signature="a{sv}")
        options = dbus.Dictionary(options, signature="sv")
        # Returns when the job has its place or, if that takes long, with where it would go.
        _, route = inference.GenerateTo(dbus.types.UnixFd(sink), messages, options)
    finally:
        os.close(sink)  # or the end would never come

    text = codecs.getincrementaldecoder("utf-8")()
    with open(source, "rb", buffering=0) as pipe:
        while piece := pipe.read(4096):
            for end in EOT, CAN:
                if end in piece:
                    piece, _, reason = piece.partition(end)
                    write(text.decode(piece))
                    if end == CAN:
                        raise RuntimeError((reason + pipe.readall()).decode())
                    return route
            write(text.decode(piece))
    raise RuntimeError("the answer broke off")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)

    def write(piece):
        sys.stdout.write(piece)
        sys.stdout.flush()

    try:
        route = ask(sys.argv[1], dict(map(option, sys.argv[2:])), write)
    except dbus.DBusException as e:
        sys.exit(f"{e.get_dbus_name()}: {e.get_dbus_message()}")
    except RuntimeError as e:
        sys.exit(f"\nask.py: {e}")
    print(f"\n{route['backend_used']} ({route['hardware']}), {route['reason']}", file=sys.stderr)


if __name__ == "__main__":
    main()
