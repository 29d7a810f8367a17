# SPDX-License-Identifier: Apache-2.0
"""A TLS certificate that is renewed while the server runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from manymind.server.journal import LOGGER_NAME

_Stamps = list[tuple[int, int, int]]


class RenewedCertificate:
    """Puts new files into use for new connections.

    Args:
        context: of the listening socket, with the files as they were.
        certificate, key: PEM files.
    """

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        self._context = context
        self._files = (certificate, key)
        self._seen = self._stamps()

    def look(self) -> None:
        """Reads the files if they have changed; files that do not belong together, as while only
        one of them is replaced, leave what is in use and are said once.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        logger = logging.getLogger(LOGGER_NAME)
        try:
            # On a context of its own first: one that fails half way would be of no use any more.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self._context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            logger.warning("the TLS certificate is not renewed: %s", error)
        else:
            logger.info("the TLS certificate is renewed")

    def _stamps(self) -> _Stamps:
        try:
            found = [file.stat() for file in self._files]
        except OSError:
            return []
        return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in found]
