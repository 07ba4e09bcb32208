#!/usr/bin/env -S gjs -m
// Asks joulemux over D-Bus as a GNOME program would, and prints the answer as it
// comes.
//
//     ask.js "Why is the sky blue?"
//
// The answer comes on a socket, not in messages of the bus: after the text a byte
// says whether it is whole, and where it is not, why.

import Gio from 'gi://Gio';
import GLib from 'gi://GLib';
import System from 'system';

const NAME = 'io.github.joulemux.Inference1';
const PATH = '/io/github/joulemux/Inference1';
const EOT = 4, CAN = 24;

// A connection that nothing refers to is closed, and whose caller is gone his job
// is cancelled.
const bus = Gio.DBus.session;

Gio._promisify(Gio.DBusConnection.prototype, 'call_with_unix_fd_list');
Gio._promisify(Gio.InputStream.prototype, 'read_bytes_async');
Gio._promisify(Gio.SocketClient.prototype, 'connect_async');
Gio._promisify(Gio.SocketListener.prototype, 'accept_async');

// Two ends of a connection, by way of a name that only this user can reach.
async function socketPair() {
    const path = `${GLib.get_user_runtime_dir()}/ask-${GLib.uuid_string_random()}`;
    const address = new Gio.UnixSocketAddress({path});
    const listener = new Gio.SocketListener();
    listener.add_address(address, Gio.SocketType.STREAM, Gio.SocketProtocol.DEFAULT, null);
    try {
        const [[theirs], ours] = await Promise.all([
            listener.accept_async(null),
            new Gio.SocketClient().connect_async(address, null),
        ]);
        return [ours, theirs];
    } finally {
        listener.close();
        GLib.unlink(path);
    }
}

// Has write take the answer piece by piece; returns where it ran.
async function ask(prompt, options, write) {
    const [ours, theirs] = await socketPair();
    const descriptors = new Gio.UnixFDList();
    const message = {role: new GLib.Variant('s', 'user'), content: new GLib.Variant('s', prompt)};
    const handle = descriptors.append(theirs.get_socket().get_fd());
    let reply;
    try {
        // It returns when the job has its place or, if that takes long, with where it would go.
        [reply] = await bus.call_with_unix_fd_list(NAME, PATH, NAME, 'GenerateTo',
            new GLib.Variant('(haa{sv}a{sv})', [handle, [message], options]),
            new GLib.VariantType('(oa{sv})'), Gio.DBusCallFlags.NONE, -1, descriptors, null);
    } finally {
        theirs.close(null); // or the end would never come
    }
    const [, route] = reply.recursiveUnpack();

    // Pieces end between characters or within one: a decoder keeps what is left.
    const input = ours.get_input_stream();
    let kept = new Uint8Array();
    for (;;) {
        const piece = (await input.read_bytes_async(4096, GLib.PRIORITY_DEFAULT, null)).toArray();
        if (piece.length === 0)
            throw new Error('the answer broke off');
        const bytes = Uint8Array.of(...kept, ...piece);
        const end = bytes.findIndex(b => b === EOT || b === CAN);
        if (end >= 0) {
            write(new TextDecoder().decode(bytes.subarray(0, end)));
            if (bytes[end] === CAN)
                throw new Error(new TextDecoder().decode(bytes.subarray(end + 1)));
            return route;
        }
        const whole = wholeCharacters(bytes);
        write(new TextDecoder().decode(bytes.subarray(0, whole)));
        kept = bytes.subarray(whole);
    }
}

// How many of the bytes are whole characters of UTF-8.
function wholeCharacters(bytes) {
    for (let back = 1; back <= 3 && back <= bytes.length; back++) {
        const b = bytes[bytes.length - back];
        if (b >= 0xc0) // begins a character of 2 bytes, 3 or 4
            return (b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2) > back ? bytes.length - back : bytes.length;
        if (b < 0x80)
            break;
    }
    return bytes.length;
}

async function main([prompt, ...rest]) {
    if (!prompt || rest.length > 0) {
        printerr('usage: ask.js PROMPT');
        return 2;
    }
    const out = new Gio.UnixOutputStream({fd: 1});
    try {
        const route = await ask(prompt, {class: new GLib.Variant('s', 'interactive')},
            text => text && out.write_all(new TextEncoder().encode(text), null));
        printerr(`\n${route.backend_used} (${route.hardware}), ${route.reason}`);
        return 0;
    } catch (e) {
        printerr(`ask.js: ${e.message}`);
        return 1;
    }
}

const loop = new GLib.MainLoop(null, false);
let code = 1;
main(ARGV).then(c => (code = c)).catch(e => printerr(e)).finally(() => loop.quit());
loop.run();
System.exit(code);
