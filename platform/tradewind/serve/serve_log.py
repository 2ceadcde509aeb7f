"""What Serve says in a replica's process, as our own lines."""

from __future__ import annotations

import logging
import sys
from typing import Final

from ray.serve._private.logging_utils import StreamToLogger

from tradewind.telemetry.logs import adopt_logger

SERVE_LOGGER: Final = "ray.serve"


def adopt_serve() -> None:
    """Write what Serve says as our own lines: an exception without its message, which may quote a request. Of
    its access log, which it builds even where it is switched off, nothing.

    Only where Serve writes to the console, as in pods. Elsewhere it writes files and feeds what is printed to
    this very logger, which would so never be done with a line.
    """
    if isinstance(sys.stdout, StreamToLogger):
        return
    adopt_logger(SERVE_LOGGER)
    logging.getLogger(SERVE_LOGGER).addFilter(lambda record: not getattr(record, "serve_access_log", False))
