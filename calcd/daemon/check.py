"""Test the configuration (-t): say what was read, what is wrong and what has no effect."""

import os
from collections.abc import Iterable

from calcd.config.converters import absolute
from calcd.config.errors import SettingsError
from calcd.config.settings import DEFAULT_FILE, SETTINGS, Settings, option, read_settings
from calcd.daemon.actions import configuration_errors
from calcd.daemon.cli import CommandLine
from calcd.daemon.effect import without_effect
from calcd.daemon.log import print_errors, print_warning
from calcd.daemon.units import Unit, loaded_units

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
        if errors := configuration_errors(settings, background):
            raise SettingsError(errors)
    except SettingsError as error:
        print_errors(error)
        return WRONG
    warnings = configuration_warnings(settings, command_line, loaded_units())
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


def configuration_warnings(
    settings: Settings, command_line: CommandLine, units: Iterable[Unit]
) -> list[str]:
    """Return what an operator should know of settings that are right.

    ``units`` are those that systemd has loaded: a service that reads the same file may hold the
    sockets, or have options that this test does not see.
    """
    services = () if command_line.background else _services_of(command_line.file, units)
    triggers = sorted({name for service in services for name in service.triggered_by})
    metrics = [name for name in triggers if _METRICS in name]
    sockets = [name for name in triggers if _METRICS not in name]
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
    return warnings


def _certificate_warnings(settings: Settings) -> list[str]:
    if not settings.tls_certificate:
        return []
    from calcd.net.credentials import load_credentials  # ssl is slow to import

    return load_credentials(settings).warnings()


def _services_of(file: str | None, units: Iterable[Unit]) -> list[Unit]:
    """Return the services that read this file of settings; None: the default one."""
    wanted = file or DEFAULT_FILE
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
