"""Test the configuration (-t): say what was read, what is wrong and what has no effect."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from calcd.config.converters import absolute
from calcd.config.errors import ConfigError, SettingsError
from calcd.config.settings import (
    DEFAULT_FILE,
    SETTINGS,
    Settings,
    missing_package,
    option,
    read_settings,
)
from calcd.daemon.cli import CommandLine
from calcd.daemon.detach import Account, daemon_context, find_account
from calcd.daemon.effect import without_effect
from calcd.daemon.log import print_errors, print_warning
from calcd.daemon.logsinks import NoReaderError, open_file
from calcd.daemon.pidfile import find_holder
from calcd.daemon.units import Unit, loaded_units
from calcd.net import listeners

RIGHT, WRONG = 0, 2  # exit statuses
_METRICS = "metrics"  # a part of the names of socket units for metrics
_FILES = [row.name for row in SETTINGS if row.name.startswith("tls_")]  # that are read here


def check(command_line: CommandLine) -> int:
    """Test the settings on this machine, and print what comes of it; return the exit status."""
    print(f"calcd: {_what_is_read(command_line)}", flush=True)
    background = command_line.background
    try:
        settings = read_settings(command_line.file, command_line.options, background)
        for name in _FILES:
            if path := getattr(settings, name):
                print(f"calcd: reads {path}, the {name}", flush=True)
        units = loaded_units()
        if errors := configuration_errors(_with_effect(settings, command_line, units), background):
            raise SettingsError(errors)
    except SettingsError as error:
        print_errors(error)
        return WRONG
    warnings = configuration_warnings(settings, command_line, units)
    for warning in (*warnings, *_certificate_warnings(settings)):
        print_warning(warning)
    print("calcd: the settings are right")
    return RIGHT


def _what_is_read(command_line: CommandLine) -> str:
    file = command_line.file or DEFAULT_FILE
    is_missing = command_line.file is None and not os.path.exists(file)
    of_file = f"reads no file, as there is no {file}" if is_missing else f"reads {file}"
    options = " ".join(map(option, command_line.options))
    return f"{of_file}, and {'the options ' + options if options else 'no options'}"


# Errors


def configuration_errors(settings: Settings, background: bool = False) -> list[ConfigError]:
    """Return what would keep the daemon from running on this machine, with valid settings.

    ``background``: the settings are for -d.
    """
    errors: list[ConfigError] = []
    account = None
    if background:
        with _collected(errors):
            daemon_context()
    for endpoint in (*settings.listen, *settings.metrics):
        with _collected(errors):
            listeners.check(endpoint, settings.reuse_port and not endpoint.http)
    if settings.tls_certificate:
        from calcd.net.credentials import load_credentials  # ssl is slow to import

        with _collected(errors):
            load_credentials(settings)
    if settings.pidfile:
        with _collected(errors):
            _check_pidfile(settings.pidfile)
    with _collected(errors):
        account = find_account(settings.user, settings.group)
    if settings.log_to not in ("stderr", "syslog"):
        with _collected(errors):
            _check_log(settings.log_to, account if background else None)
    for error in errors:
        error.locate(settings.sources)
    return errors


@contextmanager
def _collected(errors: list[ConfigError]) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        errors.append(error)


def _check_pidfile(path: str) -> None:
    directory = os.path.dirname(path)  # the daemon creates it if it is missing
    _check_writable("pidfile", path if os.path.lexists(directory) else directory)
    find_holder(path)


def _check_log(path: str, account: Account | None) -> None:
    _check_writable("log_to", path, account)
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            # Only opening it tells whether a process reads it. A reader that waits for its first
            # writer then meets an end of file, as it does at each restart of the daemon.
            with _running_as(account):
                os.close(open_file(path))
    except FileNotFoundError:  # the daemon creates it
        return
    except OSError as error:  # such as a name that is too long
        is_unread = isinstance(error, NoReaderError)
        hint = "start its reader first" if is_unread else "choose another path"
        raise ConfigError(f"'{path}': {error.strerror}", hint, setting="log_to") from None


def _check_writable(setting: str, path: str, account: Account | None = None) -> None:
    """Raise ``ConfigError`` if the daemon, as ``account`` if it becomes one, cannot write there."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise ConfigError(f"'{path}' is a directory", "name a file in it", setting=setting)
    if not os.path.isdir(directory):
        reason = f"'{path}': there is no directory {directory}"
        raise ConfigError(reason, "make it first", setting=setting)
    nearest = path if os.path.exists(path) else directory
    with _running_as(account):
        writable = os.access(nearest, os.W_OK, effective_ids=True)
    if not writable:
        hint = "choose another path or user"
        raise ConfigError(f"'{path}' cannot be written", hint, setting=setting)


@contextmanager
def _running_as(account: Account | None) -> Iterator[None]:
    """Change the effective user and group to ``account`` for a while, unless it is None."""
    uid, gid = os.geteuid(), os.getegid()
    if account:
        os.setegid(account.gid)
        os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(uid)
        os.setegid(gid)


# Warnings


def configuration_warnings(
    settings: Settings, command_line: CommandLine, units: Iterable[Unit]
) -> list[str]:
    """Return what an operator should know of settings that are right.

    ``units`` are those that systemd has loaded: a service that reads the same file may hold the
    sockets, or have options that this test does not see.
    """
    services = _services_of(command_line, units)
    sockets, metrics = _sockets_of(services)
    holders, metrics_holders = (
        f"change them in {', '.join(names)}" if names else "" for names in (sockets, metrics)
    )
    # Whether a socket unit is for TLS, this test does not see.
    tls = True if sockets else None
    warnings = without_effect(settings, command_line.background, holders, metrics_holders, tls)
    warnings += [
        f"{service.name} has options that this test does not see: {' '.join(service.arguments)}"
        for service in services
        if service.arguments and not command_line.options
    ]
    if metrics and (error := missing_package()):
        warnings.append(f"{', '.join(metrics)} keeps the service from starting: {error}")
    return warnings


def _with_effect(settings: Settings, command_line: CommandLine, units: Iterable[Unit]) -> Settings:
    """Return the settings without the endpoints that have no effect: they need not be right."""
    sockets, metrics = _sockets_of(_services_of(command_line, units))
    return replace(
        settings,
        listen=() if sockets else settings.listen,
        metrics=() if metrics else settings.metrics,
    )


def _certificate_warnings(settings: Settings) -> list[str]:
    if not settings.tls_certificate:
        return []
    from calcd.net.credentials import load_credentials  # ssl is slow to import

    return load_credentials(settings).warnings()


def _sockets_of(services: Iterable[Unit]) -> tuple[list[str], list[str]]:
    """Return the names of the services' socket units: those for clients, and for metrics."""
    names = sorted({name for service in services for name in service.triggered_by})
    metrics = [name for name in names if _METRICS in name]
    return [name for name in names if name not in metrics], metrics


def _services_of(command_line: CommandLine, units: Iterable[Unit]) -> list[Unit]:
    """Return the services that read the file of settings; with -d, none."""
    if command_line.background:
        return []
    wanted = command_line.file or DEFAULT_FILE
    return [
        unit
        for unit in units
        if unit.name.endswith(".service") and _file_of(unit.arguments) == wanted
    ]


def _file_of(arguments: tuple[str, ...]) -> str:
    """Return the file of settings that a command line names, or the default one."""
    for position, argument in enumerate(arguments):
        if argument in ("-c", "--config") and position + 1 < len(arguments):
            return absolute(arguments[position + 1])
        for prefix in "--config=", "-c":
            if argument.startswith(prefix) and argument != prefix:
                return absolute(argument.removeprefix(prefix))
    return DEFAULT_FILE
