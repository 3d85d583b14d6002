"""What a mosquitto of ours is told: for one machine and everybody on it, or for a secured fleet."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from .codec import MAX_MESSAGE_BYTES

# Room for the envelope's address beside the largest payload.
LARGEST_PACKET_BYTES = MAX_MESSAGE_BYTES + 64 * 1024
LARGEST_FLEET = 500
LOOPBACK = "127.0.0.1"

# Files of a secured broker, by what mosquitto calls them.
SERVER_FILES = {
    "cafile": "ca.crt",
    "certfile": "server.crt",
    "keyfile": "server.key",
    "crlfile": "revoked.crl",
}
ACCESS_LIST_FILE = "access.list"

_COMMON = """\
# Without it an acknowledgement waits up to 40 ms for company, and every answer with it.
set_tcp_nodelay true
# The defaults (20 and 1000) hold up a busy fleet, and drop the newest results of a client that is away for a moment.
max_inflight_messages 100
max_queued_messages 20000
max_queued_bytes 134217728
# A client that does not come back within the hour was restarted or has gone.
persistent_client_expiration 1h
# Vehicles keep their tasks themselves: a disk would only slow the broker down.
persistence false
"""

_LOGS = "log_dest stderr\nlog_type error\nlog_type warning\n"

_SECURED = """\
# Nobody is anybody without a certificate of the fleet's own authority.
allow_anonymous false
require_certificate true
tls_version tlsv1.3
{files}
# The certificate's name is the user's, which the access list speaks of, and the client id: who connects with another's
# id would otherwise end the other's connection and take over what waits for it.
use_identity_as_username true
use_username_as_clientid true
acl_file {access_list}
# The largest message of roadside is 8 MiB; 64 KiB more for its address.
max_packet_size {packet_bytes}
# Raise it for a larger fleet.
max_connections {connections}
"""


def open_on_loopback(port: int) -> str:
    """For this machine only, where whoever can connect may do so."""
    listener = f"listener {port} {LOOPBACK}\nallow_anonymous true\nmessage_size_limit {LARGEST_PACKET_BYTES}\n"
    return f"# Written by roadside; loopback only.\n{listener}{_COMMON}{_LOGS}"


def secured(folder: Path, *, port: int, host: str | None = None) -> str:
    """For a fleet whose broker's files stand in `folder`, under the names above.

    host: the interface to listen on; None: all of them.
    """
    files = "\n".join(f"{option} {folder / name}" for option, name in SERVER_FILES.items())
    listener = f"listener {port}{f' {host}' if host is not None else ''}"
    secured = _SECURED.format(
        files=files,
        access_list=folder / ACCESS_LIST_FILE,
        packet_bytes=LARGEST_PACKET_BYTES,
        connections=LARGEST_FLEET,
    )
    return f"# Written by roadside: mutual TLS, and an access list by identity.\n{listener}\n{secured}{_COMMON}"


def run_by_this_user() -> str:
    """Lines for a mosquitto that is a child of ours.

    Started by root it would become another user before it reads its key, which only this one may read.
    """
    user = f"user {getpass.getuser()}\n" if os.geteuid() == 0 else ""
    return user + _LOGS
