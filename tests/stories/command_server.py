"""The keyswitch command for a shell, by fork: importing it takes a second, and a story has dozens of commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 17
SHIM = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect({path!r})
asked = json.dumps([sys.argv, dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [asked], [0, 1, 2])
sys.exit(int(server.recv(8) or b"70"))
"""


def write_shim(folder: Path, socket_path: str) -> None:
    """Puts a `keyswitch` into a folder that asks the server to be one."""
    shim = folder / "keyswitch"
    shim.write_text(SHIM.format(python=sys.executable, path=socket_path))
    shim.chmod(0o755)


def serve(socket_path: str) -> None:
    """Makes a command of every connection, until the process is ended."""
    import grpc.experimental  # noqa: F401 # with the lines below: what every command then has without importing it
    import keyswitch_cli.main
    import pydantic  # noqa: F401

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(socket_path)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the commands: their shims do
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            os._exit(_become(connection, keyswitch_cli.main.run))
        connection.close()


def _become(connection: socket.socket, run: Any) -> int:
    asked, descriptors, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    sys.argv, environment, folder = json.loads(asked)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 70
    try:
        run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(str(code).encode())
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
