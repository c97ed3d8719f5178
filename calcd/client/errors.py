"""Errors of the client, and how an error is described to its user."""


class UsageError(Exception):
    """The command line is wrong. Exit status 2."""


class ClientError(Exception):
    """The run ended before every request had its reply. Exit status 3."""


def describe(error: Exception) -> str:
    """Return what went wrong in lower case, in the words of the system or of OpenSSL."""
    if reason := getattr(error, "reason", None):  # set by OpenSSL
        return str(reason).replace("_", " ").lower()
    return (getattr(error, "strerror", None) or str(error)).lower()
