"""The operands of calcc: the server that they name, or what else they may have meant.

The first thing that people try is often a request or a file where HOST belongs. That is told before
any name is looked up.
"""

import os
import stat
from _socket import getservbyname
from shlex import quote

from calcd.client.endpoint import DEFAULT_PORT, is_port
from calcd.client.protocol import UsageError, is_number, without_accents
from calcd.client.streams import STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMES = ("tcp", "tls", "udp", "unix")
# The names of all operations, without accents.
OPERATIONS = (
    "ABS ACOS ADD AJUDA ARRED ARREDONDAMENTO ASEN ASIN ATAN CEIL CLEAR CMP COMB COMP COS DIV "
    "EXACT EXACTO EXATO EXIT EXP FACT FAT FLOOR GCD HELP IDIOMA IDIV LANGUAGE LCM LIMPAR LN LOG "
    "LOG10 MAIUSCULA MAX MDC MEAN MEDIA MIN MMC MOD MUL NEG NOTACAO NOTATION PERM PING PISO POT "
    "POW PRECISAO PRECISION QUIT QUOC RAIZ REDUCE REDUZ RESTO ROOT ROUND ROUNDING SAIR SEN SIN "
    "SOMA SQRT STATS SUB TAN TETO TRUNC UPPER VARIAVEIS VARS VERSAO VERSION"
)
VALUES = ("pi", "e", "ans")  # names that have a value, and may be hosts
FIRST_FREE_PORT = 1024  # lower ones belong to the services of the system


def find_server(
    operands: list[str],
    path: str | None,
    environment: str,
    column_options: "Mapping[str, str]",
    *,
    udp: bool,
) -> tuple[str, str, str, str | None]:
    """Return the scheme, the host, the port and the path of the server that is to be asked.

    `path` is that of -U. `environment` has the server if the operands have none. The options that
    make columns of the input are for what is told. Raise UsageError if there is no server, or more
    than one.
    """
    source = ""
    if not operands:
        source, operands = "CALCD_SERVER: ", [environment]
    elif told := explain(operands, column_options):
        raise UsageError(told)
    if len(operands) > 2 or path is not None:
        raise UsageError(f"one operand too many: {operands[-1]}")
    try:
        scheme, host, port, path = parse_server(operands[0])
        if len(operands) == 2:
            if port or path is not None:
                raise UsageError(f"{operands[0]} has its port: {operands[1]} is too many")
            if not operands[1]:
                raise UsageError("no port in ''")
            port = operands[1]
        port = port or DEFAULT_PORT
        if path is None and not is_port(port):
            check_service(port, "udp" if udp or scheme == "udp" else "tcp")
    except UsageError as error:
        raise UsageError(f"{source}{error}") from None
    return scheme, host, port, path


def check_service(port: str, protocol: str) -> None:
    """Raise UsageError if this is not the name of a service."""
    try:
        if port.isdecimal():  # but no port
            raise OSError
        getservbyname(port, protocol)
    except (OSError, UnicodeError):
        message = f"invalid port {port}: a number from 1 to 65535, or the name of a service"
        raise UsageError(message) from None


def parse_server(text: str) -> tuple[str, str, str, str | None]:
    """Return the scheme, the host, the port and the path of a server. Raise UsageError.

    The text is a URL as the daemon's endpoints are, HOST:PORT, or HOST. What it does not have is
    empty. Only a Unix socket has a path, and nothing else. The port may not be a valid one.
    """
    scheme, is_url, rest = text.partition("://")
    if not is_url:
        scheme, rest = "", text
    scheme = scheme.lower()
    if is_url and scheme not in SCHEMES:
        raise UsageError(f"unknown scheme in {text}: use one of {', '.join(SCHEMES)}")
    if scheme == "unix":
        path = rest.partition("?")[0]  # mode and group are the daemon's
        if not path.startswith("/"):
            raise UsageError(f"no absolute path in {text}, as in unix:///run/calcd/calcd.sock")
        return scheme, "", "", path
    rest = rest.removesuffix("/") if is_url else rest
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, bracket, colon_port = rest[1:].partition("]")
        colon, port = colon_port[:1], colon_port[1:]
        if not bracket or colon not in ("", ":"):
            raise UsageError(f"invalid address {text}: write an IPv6 address as in [::1]:12000")
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    elif is_url and ":" in rest:
        raise UsageError(f"an IPv6 address needs brackets in {text}, as in tcp://[::1]:12000")
    if not host:
        raise UsageError(f"no host in {text!r}")
    if colon and not port:
        raise UsageError(f"no port behind the colon of {text}")
    return scheme, host, port, None


def explain(operands: list[str], column_options: "Mapping[str, str]") -> str:
    """Return what operands may have meant that cannot be a HOST and a PORT, "" if they can be."""
    first, text = operands[0], " ".join(operands)
    if "://" in first or first.startswith("["):
        return ""
    if first == "-":
        return "- is the last operand: standard input follows the requests of -e"
    if "{" in text and "}" in text:
        return f"{text} is no host: calcc --each {quote(text)} asks it for each line of its input"
    if (len(operands) == 1 or not is_port(operands[1])) and (
        told := explain_file(first, column_options)
    ):
        return told
    if first.startswith(("/", "./", "../")):
        return f"{first} is no host, and no file has that name"
    if any(map(is_expression, operands[:2])) or is_operation(operands):
        from calcd.client.fold import FOLDS

        told = f"{text} is no host: calcc -e {quote(text)} asks it"
        if len(operands) == 1 and without_accents(first.upper()) in FOLDS:
            told += f", calcc --fold {first} takes a column of numbers"
        return told
    if len(operands) == 1 and is_number(first.encode()):
        told = f"{first} is no host: calcc -e {first} asks it"
        return told + (f", calcc 127.0.0.1 {first} uses that port" if is_port(first) else "")
    if len(operands) > 2:
        request = " ".join(operands[1 if names_operation(operands[1]) else 2 :])
        return f"one operand too many: {request}: calcc -e {quote(request)} asks it"
    return ""


def explain_file(name: str, column_options: "Mapping[str, str]") -> str:
    """Return how to use a file in place of a host, "" if there is none of that name."""
    if name == "localhost" or ":" in name or name.strip("0123456789.") == "":
        return ""  # always a host
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return ""
    if stat.S_ISSOCK(status.st_mode):
        return f"{name} is a Unix socket: calcc -U {quote(name)}"
    if stat.S_ISDIR(status.st_mode):
        return f"{name} is a directory" if "/" in name else ""
    if os.path.samestat(status, os.fstat(STDOUT)):
        return ""  # the shell has made it for the output: it may have the name of the host
    words = [word for option in column_options.items() for word in option if word]
    command = " ".join(["calcc", *map(quote, words)])
    return f"{name} is a file: {command} < {quote(name)} asks its lines"


def is_expression(word: str) -> bool:
    """Return whether a word has a character that no host and no port has, as 2+2 and 5! do."""
    if word.strip("0123456789.-") == "":  # also 2-1, and the minus of 2 - 1
        return "-" in word
    allowed = ".-_:%" if ":" in word else ".-_"  # the % of fe80::1%eth0
    return not all(char.isalnum() or char in allowed for char in word)


def is_operation(operands: list[str]) -> bool:
    """Return whether operands begin with an operation.

    `log 12000` can be a host and its port. `LOG 12000`, `log 8` and `log 8 2` cannot.
    """
    first = operands[0]
    if len(operands) == 2 and first.islower() and is_port(operands[1]):
        return int(operands[1]) < FIRST_FREE_PORT and names_operation(first)
    return names_operation(first)


def names_operation(word: str) -> bool:
    """Return whether a word is the name of an operation."""
    return without_accents(word.upper()) in OPERATIONS.split(" ")


def hint(operands: list[str]) -> str:
    """Return what may have been meant by a server of which the name does not resolve.

    Without operands, CALCD_SERVER has named it.
    """
    if not operands:
        return "; it is the server in CALCD_SERVER"
    if "://" in operands[0]:
        return ""
    text = " ".join(operands)
    if names_operation(operands[0]):
        return f"; calcc -e {quote(text)} asks the operation"
    if len(operands) == 1 and text.lower() in VALUES:
        return f"; calcc -e {text} asks the value"
    return f"; {told}" if (told := explain_file(operands[0], {})) else ""
