"""Table of the settings, for the file, the command line, the help and the checks."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from calcd.config import converters as to
from calcd.config.endpoints import Endpoint
from calcd.config.errors import ConfigError, SettingsError
from calcd.config.file import Row, read_file
from calcd.config.networks import Networks, Proxies
from calcd.core.decimal128 import MAX_PRECISION, NOTATIONS, ROUNDINGS
from calcd.core.errors import printable
from calcd.core.messages import LANGUAGES

SECTION = "calcd"
DEFAULT_FILE = "/etc/calcd/calcd.conf"
BACKGROUND_PIDFILE = "/run/calcd/calcd.pid"
_METRICS_PACKAGE = "prometheus_client"

_NEEDS = (  # settings that mean nothing without another one
    ("tls_key", "tls_certificate"),
    ("tls_client_ca", "tls_certificate"),
    ("tls_client_crl", "tls_client_ca"),
)


def _setting(
    convert: Callable[[str], Any], default: str, meaning: str, restart: bool = False
) -> Any:
    """Return a row of the table.

    ``default`` is text, as in the file. ``restart``: a change takes effect only after a restart.
    """
    metadata = {"convert": convert, "text": default, "meaning": meaning, "restart": restart}
    return field(default=convert(default), metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The values of all settings; times are in seconds, sizes in bytes.

    ``sources`` tells where each setting is set, by its name: ``FILE:LINE`` or the option.
    """

    listen: tuple[Endpoint, ...] = _setting(
        to.endpoints,
        "tcp://localhost:12000",
        "endpoints to listen on, separated by blanks",
        restart=True,
    )
    allow: Networks = _setting(  # noqa: RUF009 (it is frozen)
        to.networks, "", "networks that clients may connect from, separated by blanks; empty: all"
    )
    proxy_protocol_from: Proxies = _setting(  # noqa: RUF009 (it is frozen)
        to.proxies,
        "",
        "networks of proxies, whose connections must begin with a PROXY header, separated by "
        "blanks; unix: those to Unix sockets too; empty: none",
    )
    tls_certificate: str = _setting(
        to.path, "", "file with the certificate for tls:// and its intermediate certificates"
    )
    tls_key: str = _setting(
        to.path, "", "file with the certificate's private key; empty: the certificate's file"
    )
    tls_client_ca: str = _setting(
        to.path, "", "file with CA certificates, one of which must have signed a tls:// client's"
    )
    tls_client_crl: str = _setting(
        to.path,
        "",
        "file with revocation lists of these CAs: certificates that they name are refused",
    )
    message_wait: float = _setting(
        to.seconds(0),
        "0.5",
        "seconds of silence after which a request without a newline is answered, while its "
        "connection has not sent any; 0: never",
    )
    line_timeout: float = _setting(to.seconds(), "10", "seconds from a line's start to its end")
    idle_timeout: float = _setting(to.seconds(0), "300", "seconds between requests; 0: no limit")
    send_timeout: float = _setting(
        to.seconds(), "10", "seconds a client may leave its replies unread"
    )
    drain_timeout: float = _setting(
        to.seconds(0), "5", "seconds to drain connections at shutdown, before they are cut"
    )
    max_line: int = _setting(to.integer(1, 1 << 20), "16384", "maximum bytes of a line")
    max_connections: int = _setting(
        to.integer(1, 1_000_000),
        "1024",
        "maximum open connections; lowered to fit the hard limit on descriptors",
    )
    max_connections_per_host: int = _setting(
        to.integer(0, 1_000_000),
        "0",
        "maximum open connections of one address, or IPv6 /64; 0: no limit",
    )
    reuse_port: bool = _setting(
        to.switch, "no", "share the port with other instances that also set this", restart=True
    )
    workers: int = _setting(
        to.workers,
        "auto",
        "processes for expensive lines; auto: one for each core; 0: none, and no time limit",
    )
    line_cpu_timeout: float = _setting(
        to.seconds(), "0.25", "seconds of CPU time that an expensive line may take"
    )
    precision: int = _setting(to.integer(1, MAX_PRECISION), "34", "significant digits of a result")
    rounding: str = _setting(
        to.choice(*ROUNDINGS), "half-even", f"rounding of a result: {', '.join(ROUNDINGS)}"
    )
    notation: str = _setting(
        to.choice(*NOTATIONS),
        "plain",
        "how numbers are written: plain, without an exponent where they are of usual size, or "
        "scientific",
    )
    language: str = _setting(
        to.language, "en", f"language of errors and help: {', '.join(LANGUAGES)}"
    )
    log_level: str = _setting(
        to.choice("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error; debug logs every request",
    )
    log_to: str = _setting(
        to.log_target, "", "stderr, syslog or a file's path; empty: stderr, and with -d syslog"
    )
    metrics: tuple[Endpoint, ...] = _setting(
        to.metrics_endpoints,
        "",
        "http://HOST:PORT where Prometheus finds metrics, several separated by blanks; "
        "empty: nowhere",
        restart=True,
    )
    pidfile: str = _setting(
        to.path,
        "",
        f"the pidfile's path; empty: none, and with -d {BACKGROUND_PIDFILE}",
        restart=True,
    )
    user: str = _setting(to.account, "", "user to become after binding, with -d", restart=True)
    group: str = _setting(
        to.account, "", "group to become after binding, with -d; empty: the user's", restart=True
    )

    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __str__(self) -> str:
        """Return all settings as ``name=value``, for the log."""
        return " ".join(f"{row.name}={_format(getattr(self, row.name))}" for row in SETTINGS)


SETTINGS: tuple[Field[Any], ...] = tuple(row for row in fields(Settings) if row.metadata)
_BY_NAME = {row.name: row for row in SETTINGS}


def _format(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def option(name: str) -> str:
    """Return the command-line option of a setting: ``--idle-timeout``."""
    return "--" + name.replace("_", "-")


def read_settings(
    path: str | None, options: Mapping[str, str], background: bool = False
) -> Settings:
    """Return the settings: ``options`` of the command line, else the file's, else the defaults.

    ``path`` is the file given with -c. None means the default file, which may be missing.
    ``background``: the settings are for -d, where log_to and pidfile have other defaults.
    Raise ``SettingsError`` with every fault.
    """
    rows, errors = read_rows(path, options)
    values: dict[str, Any] = {"log_to": "", "pidfile": ""}
    for name, text, source in rows:
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, 1)
            hint = f"do you mean {near[0]}?" if near else "calcd -h lists them"
            unknown = ConfigError("there is no such setting", hint, setting=name, source=source)
            errors.append(unknown)
            continue
        try:
            values[name] = _BY_NAME[name].metadata["convert"](text)
        except ValueError as error:
            errors += [ConfigError(fault, setting=name, source=source) for fault in error.args]
    if background and values["log_to"] == "stderr":
        reason = "'stderr': expected syslog or a path: with -d there is no stderr"
        errors.append(ConfigError(reason, setting="log_to"))
    sources = {row.name: row.source for row in rows}
    if errors := errors or _incomplete(values):
        for each in errors:
            each.locate(sources)
        raise SettingsError(errors)
    values["log_to"] = values["log_to"] or ("syslog" if background else "stderr")
    values["pidfile"] = values["pidfile"] or (BACKGROUND_PIDFILE if background else "")
    return Settings(**values, sources=sources)


def read_rows(path: str | None, options: Mapping[str, str]) -> tuple[list[Row], list[ConfigError]]:
    """Return the rows of the file and then of the options, and the errors of the file."""
    file = DEFAULT_FILE if path is None else path
    rows: list[Row] = []
    errors: list[ConfigError] = []
    try:
        rows, errors = read_file(file, SECTION)
    except OSError as error:
        if path is not None or not isinstance(error, FileNotFoundError):
            errors = [ConfigError(error.strerror or str(error), source=file)]
    return [*rows, *(Row(name, text, option(name)) for name, text in options.items())], errors


def _incomplete(values: Mapping[str, Any]) -> list[ConfigError]:
    """Return an error for each value that needs another setting or a package that is missing."""
    texts = [
        ("listen", str(endpoint), "tls_certificate")
        for endpoint in values.get("listen", ())
        if endpoint.tls
    ]
    texts += [(name, values.get(name, ""), needed) for name, needed in _NEEDS]
    errors = [
        ConfigError(
            f"{printable(text)}: expected {needed} to be set too, to a file's path", setting=name
        )
        for name, text, needed in texts
        if text and not values.get(needed)
    ]
    package = missing_package() if values.get("metrics") else None
    return [*errors, package] if package else errors


def missing_package() -> ConfigError | None:
    """Return an error if the package that metrics need is not installed; it is not imported."""
    from importlib.util import find_spec  # most daemons serve no metrics

    if find_spec(_METRICS_PACKAGE):
        return None
    return ConfigError(
        f"metrics need the Python package {_METRICS_PACKAGE}, which is not installed",
        "pip install '.[metrics]' or Debian's python3-prometheus-client brings it; else leave "
        "metrics empty, and disable calcd-metrics.socket",
        setting="metrics",
    )


def need_restart(old: Settings, new: Settings) -> list[str]:
    """Return the names of the settings that differ and need a restart."""
    return [
        row.name
        for row in SETTINGS
        if row.metadata["restart"] and getattr(old, row.name) != getattr(new, row.name)
    ]
