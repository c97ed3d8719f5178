"""Completion in bash, zsh and fish: every option, and the values that are known."""

from collections.abc import Iterator

import pytest
from options import choices, client_options, daemon_options
from shells import Bash, Fish, Shell, Zsh

from calcd.client import cli
from calcd.client.fold import FOLDS
from calcd.config import converters as to
from calcd.config.settings import SETTINGS, option
from calcd.daemon.actions import ACTIONS

CONVERTERS = {option(row.name): row.metadata["convert"] for row in SETTINGS}
CHOICES = {option(name): words for name, words in choices().items()}
SCHEMES = ["tcp://", "tls://", "udp://", "unix:///"]
KNOWN_HOST = (
    "calcd.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0d\n"
)


@pytest.fixture(scope="module", params=[Bash, Zsh, Fish], ids=lambda kind: kind.program)
def shell(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    kind: type[Shell] = request.param
    if reason := kind.why_not():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp(kind.program)
    (home / "some.conf").touch()
    (home / ".ssh").mkdir()
    (home / ".ssh" / "known_hosts").write_text(KNOWN_HOST)
    shell = kind(home)
    yield shell
    shell.close()


def values(shell: Shell, command: str, name: str, begun: str = "") -> list[str]:
    """Return how the value of an option may go on, in a word of its own or behind ``=``."""
    found = shell.complete(f"{command} {name} {begun}")
    if name.startswith("--"):
        joined = shell.complete(f"{command} {name}={begun}")
        assert [word.removeprefix(f"{name}=") for word in joined] == found
    return found


def test_calcd_completes_each_option(shell: Shell) -> None:
    names = {name for names in daemon_options() for name in names}
    assert set(shell.complete("calcd -")) == names
    for name in names:
        if name.startswith("--"):
            assert name in shell.complete(f"calcd {name[:-1]}")


def test_calcc_completes_each_option(shell: Shell) -> None:
    names = {name for names in client_options() for name in names}
    assert set(shell.complete("calcc -")) == names
    for name in names:
        if name.startswith("--"):
            assert name in shell.complete(f"calcc localhost {name[:-1]}")


def test_settings_complete_the_words_that_they_take(shell: Shell) -> None:
    for name, words in CHOICES.items():
        assert sorted(values(shell, "calcd", name)) == sorted(words)
        assert values(shell, "calcd", name, words[0][:-1]) == [words[0]]
    for name, convert in CONVERTERS.items():
        if convert is to.switch:
            assert sorted(values(shell, "calcd", name)) == ["no", "yes"]
    assert values(shell, "calcd", "--workers") == ["auto"]


def test_actions_are_completed(shell: Shell) -> None:
    assert sorted(values(shell, "calcd", "-s")) == sorted(ACTIONS)
    assert sorted(values(shell, "calcd", "--signal")) == sorted(ACTIONS)


@pytest.mark.parametrize(
    "before",
    [
        "-d",
        "--tls-key=a",
        "--tls-key a",
        "--idle-timeout=5",
        "--max-line=5",
        "-l tcp://a:1 -l unix:///s",
        "-ca",
    ],
)
def test_options_follow_options(before: str, shell: Shell) -> None:
    assert shell.complete(f"calcd {before} --r") == ["--reuse-port", "--rounding"]
    assert sorted(values(shell, f"calcd {before}", "--notation")) == ["plain", "scientific"]


@pytest.mark.parametrize(
    "before",
    ["-4u", "-w 2", "-uw2", "--retry=5", "-e PING", "--ssl-key=a", "localhost 12000", "-F,"],
)
def test_options_of_calcc_follow_options(before: str, shell: Shell) -> None:
    assert shell.complete(f"calcc {before} --sk") == ["--skip-bad"]
    assert shell.complete(f"calcc {before} --ssl-cert som") == ["some.conf"]


def test_endpoints_begin_with_a_scheme(shell: Shell) -> None:
    assert shell.complete("calcd -l ") == SCHEMES
    assert shell.complete("calcd --listen ") == SCHEMES
    assert shell.complete("calcd --listen un") == ["unix:///"]


def test_the_address_of_metrics_is_completed(shell: Shell) -> None:
    assert shell.complete("calcd --metrics ") == ["http://localhost:9112"]
    assert shell.complete("calcd --metrics ht") == ["http://localhost:9112"]


def test_files_are_completed_where_a_file_is_taken(shell: Shell) -> None:
    takers = [name for name, convert in CONVERTERS.items() if convert in (to.path, to.log_target)]
    assert len(takers) > 4
    for name in ["-c", "--config", *takers]:
        assert values(shell, "calcd", name, "som") == ["some.conf"]
    for first, long, value, _ in cli.OPTIONS + cli.TLS_OPTIONS:
        if value in ("FILE", "PATH"):
            for name in filter(None, (first, long)):
                assert values(shell, "calcc", name, "som") == ["some.conf"]
    assert shell.complete("calcc -uU som") == ["some.conf"]
    assert {"some.conf", "stderr", "syslog"} <= set(values(shell, "calcd", "--log-to", "s"))


def test_no_file_is_completed_where_none_is_taken(shell: Shell) -> None:
    """A number, a network or a request cannot be known."""
    known = (to.path, to.log_target, to.switch, to.workers, to.account, to.endpoints)
    unknown = [name for name, convert in CONVERTERS.items() if convert not in known]
    for name in set(unknown) - CHOICES.keys() - {"--metrics"}:
        assert values(shell, "calcd", name) == values(shell, "calcd", name, "som") == []
    for first, long, value, _ in cli.OPTIONS + cli.COLUMN_OPTIONS:
        if value not in ("", "FILE", "PATH", "OPERATION"):
            for name in filter(None, (first, long)):
                assert values(shell, "calcc", name) == values(shell, "calcc", name, "som") == []
    assert shell.complete("calcd som") == []
    assert shell.complete("calcc som") == []


def test_accounts_are_completed(shell: Shell) -> None:
    assert "root" in values(shell, "calcd", "--user", "roo")
    assert "root" in values(shell, "calcd", "--group", "roo")


def test_operations_of_a_fold_are_completed(shell: Shell) -> None:
    assert sorted(values(shell, "calcc", "--fold")) == sorted(FOLDS)


def test_known_hosts_are_completed(shell: Shell) -> None:
    assert shell.complete("calcc calc") == ["calcd.example"]
    assert shell.complete("calcc -e PING -w 2 calc") == ["calcd.example"]
    assert values(shell, "calcc", "--ssl-servername", "calc") == ["calcd.example"]
