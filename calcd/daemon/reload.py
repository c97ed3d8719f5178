"""Read the settings again, and open the log again, while the daemon serves."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from errno import EROFS
from typing import TYPE_CHECKING

from calcd.config.errors import ConfigError, SettingsError, wrong_settings
from calcd.config.settings import Settings, need_restart, read_settings
from calcd.daemon.answers import Answer
from calcd.daemon.cli import CommandLine
from calcd.daemon.effect import effect_warnings, in_force
from calcd.daemon.log import open_log, print_error
from calcd.daemon.logsinks import NoReaderError
from calcd.net.limits import raise_descriptor_limit
from calcd.net.listeners import Listener, warn_if_public
from calcd.net.server import Server
from calcd.net.workers import warn_without_workers

if TYPE_CHECKING:
    from calcd.net.credentials import Credentials

log = logging.getLogger("calcd")


def reload(
    server: Server,
    listeners: Sequence[Listener],
    command_line: CommandLine,
    credentials: "Credentials | None",
) -> tuple[Answer, "Credentials | None"]:
    """Read the settings and certificates again, and open the log again.

    ``listeners`` are all, also those of metrics; ``credentials`` are in force. If anything is
    wrong, the old settings stay in force. Return whether the new ones are in force, and what is
    wrong with them, or what of them needs a restart or has no effect; and the credentials that are
    in force then.
    """
    old, background = server.settings, command_line.background
    try:
        new, loaded = _read_settings(listeners, command_line)
    except SettingsError as error:
        for each in error.errors:
            log.error("reload: %s", each)
        log.error("reload: the settings stay as they were")
        reopen_log(old)
        log.info("settings in force: %s", old)
        return Answer(False, [str(each) for each in error.errors]), credentials
    warnings = effect_warnings(new, listeners, background)
    new = in_force(new, listeners, background)
    if fixed := need_restart(old, new):
        warnings.append(f"a restart is needed to change {', '.join(fixed)}")
    for warning in warnings:
        log.warning("reload: %s", warning)
    kept = {name: getattr(old, name) for name in fixed}
    server.settings = raise_descriptor_limit(replace(new, **kept))
    log.info("settings in force: %s", server.settings)
    warn_if_public(listeners, server.settings, old)
    if loaded:
        server.tls = loaded.context
        loaded.report(credentials)
        warnings += loaded.warnings()
    if server.settings.workers != old.workers:
        warn_without_workers(server.settings)
    return Answer(True, warnings), loaded


def _read_settings(
    listeners: Sequence[Listener], command_line: CommandLine
) -> tuple[Settings, "Credentials | None"]:
    """Read the settings, and what they name; raise ``SettingsError`` if any of it is wrong.

    Their log is open then.
    """
    new = read_settings(command_line.file, command_line.options, command_line.background)
    with wrong_settings(new.sources):
        loaded = load_tls(listeners, new)
        open_settings_log(new)
    return new, loaded


def reopen_log(settings: Settings) -> Answer:
    """Open the log again, which may have been moved. If that fails, it stays where it is."""
    try:
        open_settings_log(settings)
    except ConfigError as error:
        error.locate(settings.sources)
        log.error("the log stays as it was: %s", error)
        print_error(str(error))  # it may be a deleted file
        return Answer(False, [str(error)])
    return Answer(True)


def open_settings_log(settings: Settings, user: str = "") -> None:
    """Open the log that the settings name, at their level; raise ``ConfigError``.

    ``user`` is whom this process has become.
    """
    try:
        open_log(settings.log_to, settings.log_level)
    except OSError as error:
        as_user = f" as {user}" if user else ""
        hint = "name another with --log-to"
        if isinstance(error, NoReaderError):
            hint = f"start its reader first, or {hint}"
        if error.errno == EROFS:
            hint = "a service's sandbox has no files to write: leave log_to empty for the journal"
        reason = f"cannot write the log {settings.log_to}{as_user}: {error.strerror}"
        raise ConfigError(reason, hint, setting="log_to") from None


def load_tls(listeners: Sequence[Listener], settings: Settings) -> "Credentials | None":
    """Load what TLS endpoints need, if there are any; else do not even import ssl."""
    if not any(listener.endpoint.tls for listener in listeners):
        return None
    from calcd.net.credentials import load_credentials

    return load_credentials(settings)
