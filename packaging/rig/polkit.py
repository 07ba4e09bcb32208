"""A polkit that says yes to everybody, for daemons that ask it on a private
bus. The address of the bus is its argument.

It prints "ready" when it can be asked.
"""

import sys

from gi.repository import Gio, GLib

NAME = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE = """
<node>
  <interface name="org.freedesktop.PolicyKit1.Authority">
    <method name="CheckAuthorization">
      <arg type="(sa{sv})" direction="in"/>
      <arg type="s" direction="in"/>
      <arg type="a{ss}" direction="in"/>
      <arg type="u" direction="in"/>
      <arg type="s" direction="in"/>
      <arg type="(bba{ss})" direction="out"/>
    </method>
    <signal name="Changed"/>
  </interface>
</node>
"""


def answer(connection, sender, path, interface, method, arguments, invocation):
    authorized, challenge, details = True, False, {}
    result = GLib.Variant("((bba{ss}))", ((authorized, challenge, details),))
    invocation.return_value(result)


def main():
    connection = Gio.DBusConnection.new_for_address_sync(
        sys.argv[1],
        Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT
        | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION,
        None,
        None,
    )
    interface = Gio.DBusNodeInfo.new_for_xml(INTERFACE).interfaces[0]
    connection.register_object(PATH, interface, answer, None, None)
    Gio.bus_own_name_on_connection(
        connection,
        NAME,
        Gio.BusNameOwnerFlags.NONE,
        lambda *_: print("ready", flush=True),
        None,
    )
    GLib.MainLoop().run()


main()
