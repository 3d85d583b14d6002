"""What a process shows to its broker, and what it wants to be shown: mutual TLS 1.3 by a folder of certificates.

The folder is one that `roadside secure` made, or holds only what this process needs of it: ca.crt and its own
NAME.crt and NAME.key, NAME being its name on the bus.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import structlog

from .errors import ConfigurationError

AUTHORITY_FILE = "ca.crt"

_log = structlog.get_logger(__name__)


class Credentials:
    """One identity's certificate and key. Raises ConfigurationError where they are missing or cannot be used.

    name: of the identity; folder: where its files are.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        if (key := folder / f"{name}.key").exists() and key.stat().st_mode & stat.S_IROTH:
            _log.warning("everybody on this machine can read the key: chmod 600", key=str(key))
        self._last = self._load()

    def __repr__(self) -> str:
        return f"Credentials({str(self._folder)!r}, {self.name!r})"

    def context(self) -> ssl.SSLContext:
        """For one connection. Read anew each time, so that renewed files are used without a restart."""
        try:
            self._last = self._load()
        except ConfigurationError as error:
            # Files that are just being replaced do not belong together for a moment.
            _log.warning("certificate not read anew, the last one is shown", identity=self.name, why=str(error))
        return self._last

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._folder / f"{self.name}.crt", self._folder / f"{self.name}.key"
        authority = self._folder / AUTHORITY_FILE
        for path in (authority, certificate, key):
            if not path.is_file():
                raise ConfigurationError(
                    f"no {path.name} in {self._folder}: `roadside secure {self._folder} --add ROLE {self.name}` makes"
                    " what an identity needs, where the fleet's authority is; or give --tls another folder"
                )
        # Of the fleet's own authority alone: this machine's usual ones vouch for others.
        context = new_context(authority)
        try:
            context.load_cert_chain(certificate, key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                f"{certificate.name} and {key.name} in {self._folder} cannot be used together"
                f" ({getattr(error, 'strerror', None) or error}): look at who may read them, or make them anew"
            ) from None
        return context


def new_context(authority: Path | None = None) -> ssl.SSLContext:
    """For a client without a certificate. authority: whom to trust; None: the authorities that this machine trusts."""
    try:
        context = ssl.create_default_context(cafile=authority)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{authority} is no certificate of an authority ({reason}): copy it anew") from None
    # The fleet's own broker speaks 1.3; another's may be older.
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if authority is not None else ssl.TLSVersion.TLSv1_2
    return context
