"""The settings: one table for the file, the command line, the help and the checks."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from calcd.config import converters as casts
from calcd.config.endpoints import Endpoint
from calcd.config.file import InifileError, Row, read_inifile
from calcd.config.networks import Networks
from calcd.core.decimal128 import ROUNDINGS
from calcd.core.errors import MAX_SHOWN, printable

SECTION = "calcd"
DEFAULT_FILE = "/etc/calcd/calcd.conf"
BACKGROUND_PIDFILE = "/run/calcd/calcd.pid"


class SettingsError(Exception):
    """Settings that are wrong; ``problems`` holds a line for each, saying where and why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _setting(cast: Callable[[str], Any], default: str, meaning: str, restart: bool = False) -> Any:
    """Make a row of the table.

    ``default`` is written as in the file; ``restart`` says whether a change needs one.
    """
    metadata = {"cast": cast, "text": default, "meaning": meaning, "restart": restart}
    return field(default=cast(default), metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings in force; a time is in seconds, a size in bytes."""

    listen: tuple[Endpoint, ...] = _setting(
        casts.endpoints,
        "tcp://localhost:12000",
        "endpoints to listen on, separated by blanks",
        restart=True,
    )
    allow: Networks = _setting(  # noqa: RUF009 (it is frozen)
        casts.networks, "", "networks that clients may come from, separated by blanks; empty: all"
    )
    tls_certificate: str = _setting(
        casts.path, "", "the certificate of tls:// endpoints, a file, with those that vouch for it"
    )
    tls_key: str = _setting(
        casts.path, "", "the certificate's private key, a file; empty: it is with the certificate"
    )
    tls_client_ca: str = _setting(
        casts.path, "", "a file of certificates, one of which must vouch for a client of tls://"
    )
    message_wait: float = _setting(
        casts.seconds(0),
        "0.5",
        "seconds of silence after which a request without a newline is answered, while its "
        "connection has not sent any; 0: never",
    )
    line_timeout: float = _setting(casts.seconds(), "10", "seconds a started line may take")
    idle_timeout: float = _setting(casts.seconds(0), "300", "seconds between requests; 0: for ever")
    send_timeout: float = _setting(
        casts.seconds(), "10", "seconds a client may leave its replies unread"
    )
    drain_timeout: float = _setting(
        casts.seconds(0), "5", "seconds to finish at a stop, before connections are cut"
    )
    max_line: int = _setting(casts.integer(1, 1 << 20), "1024", "bytes a line may have")
    max_connections: int = _setting(
        casts.integer(1, 1_000_000),
        "1024",
        "connections open at once; lowered to fit the hard limit on descriptors",
    )
    max_connections_per_host: int = _setting(
        casts.integer(0, 1_000_000),
        "0",
        "connections open at once from one address, or IPv6 /64; 0: no limit",
    )
    reuse_port: bool = _setting(
        casts.switch, "no", "share the port with other instances that say so too", restart=True
    )
    precision: int = _setting(casts.integer(1, 1000), "34", "significant digits of a result")
    rounding: str = _setting(
        casts.choice(*ROUNDINGS), "half-even", f"how a result is rounded: {', '.join(ROUNDINGS)}"
    )
    log_level: str = _setting(
        casts.choice("debug", "info", "warning", "error"),
        "info",
        "debug, info, warning or error; at debug every request is logged",
    )
    log_to: str = _setting(
        casts.log_target, "", "stderr, syslog or a file's path; empty: stderr, and with -d syslog"
    )
    pidfile: str = _setting(
        casts.path,
        "",
        "the pidfile's path; empty: none, and with -d /run/calcd/calcd.pid",
        restart=True,
    )
    user: str = _setting(casts.account, "", "user to become after binding, with -d", restart=True)
    group: str = _setting(
        casts.account, "", "group to become after binding, with -d; empty: the user's", restart=True
    )

    def __str__(self) -> str:
        """Give every setting as ``name=value``, for the log."""
        return " ".join(f"{row.name}={_shown(getattr(self, row.name))}" for row in SETTINGS)


SETTINGS: tuple[Field[Any], ...] = fields(Settings)
_BY_NAME = {row.name: row for row in SETTINGS}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def option(name: str) -> str:
    """Give the command-line option of a setting: ``--idle-timeout``."""
    return "--" + name.replace("_", "-")


def _cut(name: str) -> str:
    return name if name.isidentifier() and len(name) <= MAX_SHOWN else printable(name)


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, _BY_NAME, 1)
    return f": do you mean {near[0]}?" if near else "; calcd -h lists them"


def read_settings(
    path: str | None, options: Mapping[str, str], background: bool = False
) -> Settings:
    """Gather the settings: ``options`` from the command line, else the file, else the defaults.

    ``path`` is the file given with -c, or None: then the default file, where it exists.
    ``background`` says that they are for -d, which has defaults of its own for two of them.
    Raise ``SettingsError`` with everything that is wrong.
    """
    sources, problems = _sources(path, options)
    values: dict[str, Any] = {"log_to": "", "pidfile": ""}
    for where, name, text in sources:
        if name not in _BY_NAME:
            problems.append(f"{where}: there is no such setting{_hint(name)}")
            continue
        try:
            values[name] = _BY_NAME[name].metadata["cast"](text)
        except ValueError as error:
            problems += [f"{where}: {words}" for words in error.args]
    if background and values["log_to"] == "stderr":
        where = where_set(path, options)["log_to"]
        problems.append(f"{where}: 'stderr': expected syslog or a path: with -d there is no stderr")
    if problems := problems or _without_certificate(values, where_set(path, options)):
        raise SettingsError(problems)
    values["log_to"] = values["log_to"] or ("syslog" if background else "stderr")
    values["pidfile"] = values["pidfile"] or (BACKGROUND_PIDFILE if background else "")
    return Settings(**values)


def _without_certificate(values: Mapping[str, Any], where: Mapping[str, str]) -> list[str]:
    """Tell of each setting that has no meaning without a certificate."""
    if values.get("tls_certificate"):
        return []
    needy = [("listen", str(endpoint)) for endpoint in values.get("listen", ()) if endpoint.tls]
    needy += [(name, values[name]) for name in ("tls_key", "tls_client_ca") if values.get(name)]
    return [
        f"{where[name]}: {printable(text)}: "
        "expected tls_certificate to be set too, to a file's path"
        for name, text in needy
    ]


def where_set(path: str | None, options: Mapping[str, str]) -> dict[str, str]:
    """Tell for each setting that is set where that is: file, line and name, or the option."""
    sources, _ = _sources(path, options)
    return {name: where for where, name, _ in sources}


def _sources(
    path: str | None, options: Mapping[str, str]
) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Gather where each setting is set, its name and its text, and what is wrong with the file."""
    file = DEFAULT_FILE if path is None else path
    problems: list[str] = []
    rows: list[Row] = []
    try:
        rows = read_inifile(file, SECTION)
    except InifileError as error:
        if path is not None or not isinstance(error.__cause__, FileNotFoundError):
            problems += error.problems
    sources = [(f"{file}:{row.line}: {_cut(row.name)}", row.name, row.text) for row in rows]
    return [*sources, *((option(name), name, text) for name, text in options.items())], problems


def need_restart(old: Settings, new: Settings) -> list[str]:
    """Name the settings that differ and that only a restart can change."""
    return [
        row.name
        for row in SETTINGS
        if row.metadata["restart"] and getattr(old, row.name) != getattr(new, row.name)
    ]
