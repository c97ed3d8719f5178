"""What the daemon counts beside the server, for STATS and for metrics."""

import time

from calcd.daemon.ratelimit import RATE_LIMIT
from calcd.net.stats import Counted

_DIGITS = 3  # of a second, behind the point


class DaemonCounts:
    """Counts for the daemon; to be changed by the main thread alone.

    ``certificate_expiry`` is when the TLS certificate in force expires, as Unix time; None: no TLS.
    """

    def __init__(self) -> None:
        self.certificate_expiry: float | None = None
        self._started = self._last_success = time.time()
        self._reloads = {"success": 0, "failure": 0}
        self._is_last_successful = True

    def reloaded(self, is_success: bool) -> None:
        """Count a reload, which took the new settings or kept the old ones."""
        self._reloads["success" if is_success else "failure"] += 1
        self._is_last_successful = is_success
        if is_success:
            self._last_success = time.time()

    def read(self) -> Counted:
        """Return what was counted; may be called from any thread."""
        expiry = self.certificate_expiry
        certificate = "tls_certificate_expiry_timestamp_seconds"
        last_success = round(self._last_success, _DIGITS)
        return {
            "log_lines_suppressed": {"": RATE_LIMIT.suppressed},
            "reloads": dict(self._reloads),
            "settings_last_reload_successful": {"": int(self._is_last_successful)},
            "settings_last_reload_success_timestamp_seconds": {"": last_success},
            "start_time_seconds": {"": round(self._started, _DIGITS)},
            **({certificate: {"": expiry}} if expiry is not None else {}),
        }
