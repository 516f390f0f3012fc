"""What the Hugging Face hub client says while it retries, in one line instead of a dozen."""

from __future__ import annotations

import logging
import re
from urllib.parse import urlsplit

CLIENT_LOGGER = "huggingface_hub.utils._http"
"""The logger of the client's retries; naming it imports nothing."""

_log = logging.getLogger(__name__)
_FAILURE = re.compile(r"'?(?P<cause>.+?)'? thrown while requesting \w+ (?P<url>\S+)")
_RETRY = ("Retrying in ", "Rate limited.")


class OneLine(logging.Filter):
    """Replaces the client's messages about failed requests: one warning for each host, and no line for a retry.

    The error that the client raises in the end is not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop a message about a failed request or a retry; log our own for the first failure of a host."""
        message = record.getMessage()
        failure = _FAILURE.match(message)
        if failure is None:
            return not message.startswith(_RETRY)
        host = urlsplit(failure["url"]).netloc
        if host not in self._told:
            self._told.add(host)
            _log.warning(
                "%s does not answer (%s); retrying for about half a minute (with HF_HUB_OFFLINE=1 only the local cache "
                "is used)",
                host,
                failure["cause"],
            )
        return False


def one_line_for_retries() -> None:
    """Use :class:`OneLine` in this process; a second call changes nothing."""
    logger = logging.getLogger(CLIENT_LOGGER)
    if not any(isinstance(known, OneLine) for known in logger.filters):
        logger.addFilter(OneLine())


__all__ = ["CLIENT_LOGGER", "OneLine", "one_line_for_retries"]
