"""The context of TLS endpoints, and until when the files that it was loaded from are valid."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from ssl import SSLContext
from time import time

from calcd.config.errors import ConfigError
from calcd.config.settings import Settings
from calcd.core.x509 import Certificate, RevocationList
from calcd.net.certificates import load_context, read_file, show, timestamp

log = logging.getLogger(__name__)

_DAY = 24 * 60 * 60  # seconds
_NOTICE = 30 * _DAY  # before the end of a certificate: time to renew it
_LIST_NOTICE = 1 / 3  # of the time from a list to the next: some are made every day
_OWN = "tls_certificate"
_EFFECTS = {  # of one that is not valid, and what to do
    _OWN: ("clients refuse it", "renew it"),
    "tls_client_ca": ("clients that it has signed are refused", "replace it"),
    "tls_client_crl": ("all clients of this CA are refused", "get its next list"),
}


@dataclass(frozen=True)
class Validity:
    """A certificate or revocation list that a setting's file has, and when it is valid."""

    setting: str
    path: str
    item: Certificate | RevocationList

    @property
    def name(self) -> str:
        """The kind of the item, and the name of its holder or publisher."""
        if isinstance(self.item, Certificate):
            return f"the certificate {show(self.item.subject)}"
        return f"the revocation list of {show(self.item.issuer)}"

    @property
    def changes(self) -> tuple[float, float, float]:
        """When it begins, when it is time to warn of its end, and its end, in seconds of ``time``.

        It is time 30 days before the end; for a revocation list, in the last third of its time if
        that is less.
        """
        begin = self.item.begin.timestamp()
        if self.item.end is None:
            return begin, inf, inf
        end = self.item.end.timestamp()
        if isinstance(self.item, Certificate):
            return begin, end - _NOTICE, end
        return begin, end - min(_NOTICE, _LIST_NOTICE * (end - begin)), end

    def warning(self, now: float) -> str:
        """Return a sentence if it is not valid ``now``, or not for long; else ``""``."""
        begin, notice, end = self.changes
        effect, remedy = _EFFECTS[self.setting]
        remedy += " and restart" if _is_credential(self.path) else " and reload"
        head = f"{self.setting}: '{self.path}': {self.name}"
        if now < begin:
            valid_from = timestamp(self.item.begin)
            return f"{head} is not valid before {valid_from}, in {_days(begin - now)}: {effect}"
        if now < notice or self.item.end is None:
            return ""
        expiry = timestamp(self.item.end)
        if now < end:
            return f"{head} expires in {_days(end - now)}, at {expiry}: {remedy}"
        return f"{head} expired {_days(now - end)} ago, at {expiry}: {effect}: {remedy}"


def _is_credential(path: str) -> bool:
    """Whether systemd has copied the file for this service, which it does at a start alone."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.startswith(f"{directory}/")


def _days(seconds: float) -> str:
    days = int(seconds // _DAY)
    return f"{days} day{'s' * (days > 1)}" if days else "less than a day"


class Credentials:
    """A context for TLS endpoints, and the files that it was loaded from, to warn of their end.

    ``notes`` are warnings that do not depend on the time; ``clock`` is as ``time.time``. Only the
    serving loop calls ``on_tick``, which does nothing before ``report``.
    """

    def __init__(
        self,
        context: SSLContext,
        validities: Iterable[Validity],
        notes: Iterable[str] = (),
        clock: Callable[[], float] = time,
    ) -> None:
        self.context = context
        self._validities, self._notes = tuple(validities), tuple(notes)
        self._clock = clock
        self._next_warning = inf

    @property
    def expiry(self) -> float | None:
        """When the first of our certificates expires, in seconds of ``time``; None if not known."""
        ends = (each.changes[2] for each in self._validities if each.setting == _OWN)
        return min(ends, default=None)

    def warnings(self) -> list[str]:
        """Return a sentence for each certificate and list that is not valid, or not for long."""
        now = self._clock()
        return [*self._notes, *filter(None, (each.warning(now) for each in self._validities))]

    def report(self, previous: "Credentials | None" = None) -> None:
        """Log what is in force from now on, and warn; ``previous`` is what a reload replaces."""
        certificates = [each for each in self._validities if each.setting == _OWN]
        for each in certificates[:1]:  # the others are intermediate ones
            _log_in_force(each)
        for each in self._validities:
            if each.setting == "tls_client_crl":
                _log_in_force(each)
        if previous:
            self._warn_of_copies(previous)
        self._warn()

    def on_tick(self) -> None:
        """Warn again, if a day has passed or one of the warnings has changed."""
        if self._clock() >= self._next_warning:
            self._warn()

    def _warn(self) -> None:
        now = self._clock()
        changes = [at for each in self._validities for at in each.changes if at > now]
        self._next_warning = min([now + _DAY, *changes])
        for sentence in self.warnings():
            log.warning("%s", sentence)

    def _warn_of_copies(self, previous: "Credentials") -> None:
        """Warn of systemd's credentials that are as before: a reload does not renew them."""
        unchanged = set(self._validities) & set(previous._validities)
        for setting, path in sorted({(each.setting, each.path) for each in unchanged}):
            if _is_credential(path):
                log.warning(
                    "%s: '%s' has not changed: systemd copied it when the service started, and "
                    "does not copy it again for a reload: to use a renewed one, restart the "
                    "service",
                    setting,
                    path,
                )


def _log_in_force(validity: Validity) -> None:
    item = validity.item
    end = timestamp(item.end) if item.end else "not known"
    if isinstance(item, Certificate):
        dates = f"serial {item.serial}, expires {end}"
    else:
        dates = f"made {timestamp(item.begin)}, next {end}"
    log.info("in force from '%s': %s, %s", validity.path, validity.name, dates)


def load_credentials(settings: Settings) -> Credentials:
    """Load what the TLS settings name; raise ``ConfigError`` if any of it cannot be used."""
    context = load_context(
        settings.tls_certificate,
        settings.tls_key,
        settings.tls_client_ca,
        settings.tls_client_crl,
    )
    validities: list[Validity] = []
    notes = []
    for setting in _EFFECTS:
        path = getattr(settings, setting)
        items = read_file(setting, path) if path else []
        # A file may have items of the other kind too: they have no effect.
        kind = RevocationList if setting == "tls_client_crl" else Certificate
        validities += [Validity(setting, path, each) for each in items if isinstance(each, kind)]
        if None in items:
            notes.append(f"{setting}: '{path}': a part cannot be read: its dates are not known")
    if settings.tls_client_crl:
        notes += _check_lists(settings.tls_client_crl, validities)
    return Credentials(context, validities, notes)


def _check_lists(path: str, validities: Sequence[Validity]) -> list[str]:
    """Return a warning for each clients' authority without a revocation list in the file.

    Raise ``ConfigError`` if no list is of an authority: then all clients would be refused.
    """
    authorities = [
        each.item.subject
        for each in validities
        if each.setting == "tls_client_ca" and isinstance(each.item, Certificate)
    ]
    issuers = [each.item.issuer for each in validities if each.setting == "tls_client_crl"]
    known = {each.casefold() for each in issuers}  # OpenSSL also ignores the case of names
    missing = [each for each in authorities if each.casefold() not in known]
    if missing == authorities and issuers:
        reason = (
            f"'{path}' has no revocation list of a CA in tls_client_ca, "
            f"but of {', '.join(map(show, issuers))}"
        )
        hint = "name the file with the lists of those CAs"
        raise ConfigError(reason, hint, setting="tls_client_crl")
    return [
        f"tls_client_crl: '{path}' has no revocation list of {show(each)}: "
        "all clients of this CA are refused: add its list"
        for each in missing
    ]
