"""The documents say only what is so: transcripts are run, tables are held to the code."""

import ast
import doctest
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from certificates import LOCAL, Authority
from client_helpers import COMMAND
from documents import (
    DOCUMENTS,
    OPERATIONS,
    PORTUGUESE,
    PROTOCOL,
    README,
    anchors,
    blocks,
    first_cells,
    links,
    marked,
    name_of,
    transcripts,
)
from helpers import ROOT, TIMEOUT, Daemon, Daemons, ask, clean_environment

from calcd.config.settings import SETTINGS
from calcd.core.closing import CloseReason
from calcd.core.commands import TABLE
from calcd.core.errors import CODES
from calcd.core.x509 import Certificate
from calcd.net.connection import ENDS
from calcd.net.credentials import Validity

CLIENT_PAGE = ROOT / "docs" / "clients.md"
DESIGN = ROOT / "docs" / "design.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
LAYERS = ("core", "config", "net", "daemon")

in_a_network_of_its_own = pytest.mark.skipif(
    os.geteuid() != 0, reason="a network namespace of its own needs root"
)
of_each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def documents_with(language: str) -> pytest.MarkDecorator:
    found = [document for document in DOCUMENTS if blocks(document, language)]
    assert found
    return pytest.mark.parametrize("document", found, ids=name_of)


@contextmanager
def serving(directory: Path, options: str = "") -> Iterator[list[str]]:
    """Serve in a network where the default port is free; give the command to run others there."""
    options = options or "-l tcp://localhost:12000 -l udp://localhost:12000"
    serve = f"ip link set lo up && exec {shlex.quote(sys.executable)} -m calcd {options}"
    daemon = Daemon(["unshare", "--net", "bash", "-c", serve], directory / "daemon.log")
    try:
        assert daemon.port == 12000
        yield ["nsenter", "--target", str(daemon.process.pid), "--net"]
    finally:
        assert daemon.stop() == 0


# -- What is run -----------------------------------------------------------------------------------


@in_a_network_of_its_own
@pytest.mark.skipif(shutil.which("nc.openbsd") is None, reason="needs Debian's netcat-openbsd")
@documents_with("console")
def test_each_transcript_is_what_happens(document: Path, tmp_path: Path) -> None:
    """Word for word, with standard error where it is written, as on a terminal."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in {
        "nc": "nc.openbsd",
        "python3": sys.executable,
        "calcc": shlex.join(COMMAND),
        "calcd": f"{sys.executable} -m calcd",
    }.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    with serving(tmp_path) as network:
        for command, output in transcripts(document):
            result = subprocess.run(
                [*network, "bash", "-c", command],
                cwd=ROOT,
                env=clean_environment(PATH=f"{programs}:{os.environ['PATH']}"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=True,
            )
            assert result.stdout.decode().replace("\r\n", "\n") == output, command


def test_there_are_transcripts() -> None:
    for document in README, PROTOCOL, OPERATIONS, PORTUGUESE, CLIENT_PAGE:
        assert transcripts(document)


# Tcl: types a line once the reply to the one before is there.
TELNET = r"""
set timeout 10
eval spawn -noecho [lindex $argv 0] inetutils-telnet localhost 12000
expect_after { timeout { exit 1 } eof { exit 1 } }
expect "Escape character is '^]'.\r\n"
after 200
foreach {typed reply} [lrange $argv 1 end] {
    send -- "$typed\r"
    expect -ex "$typed\r\n"
    expect -ex "$reply\r\n"
}
expect "foreign host."
expect eof
"""


@in_a_network_of_its_own
@pytest.mark.skipif(
    not (shutil.which("inetutils-telnet") and shutil.which("expect")),
    reason="needs Debian's inetutils-telnet and expect",
)
def test_the_person_at_telnet_sees_what_is_shown(tmp_path: Path) -> None:
    _, *shown = marked(README, "telnet", "").splitlines()
    lines = shown[3:-1]  # after telnet's own, typed and replied in turn
    assert len(lines) % 2 == 0
    script = tmp_path / "telnet.exp"
    script.write_text(TELNET)
    with serving(tmp_path) as network:
        done = subprocess.run(
            ["expect", script, " ".join(network), *lines],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.stdout.replace("\r", "").splitlines() == shown, done


@documents_with("pycon")
def test_each_python_session_is_what_happens(document: Path, shared_daemon: Daemon) -> None:
    where = f'"{shared_daemon.host}", {shared_daemon.port}'
    for _, example in blocks(document, "pycon"):
        assert '"localhost", 12000' in example
        example = example.replace('"localhost", 12000', where)
        test = doctest.DocTestParser().get_doctest(example, {}, str(document), None, None)
        said: list[str] = []
        assert doctest.DocTestRunner().run(test, out=said.append) == (0, len(test.examples)), said


def test_the_students_client_gets_its_answer(shared_daemon: Daemon, tmp_path: Path) -> None:
    program = marked(PORTUGUESE, "cliente", "python")
    assert '("127.0.0.1", 12000)' in program
    assert program.count(".recv(1024)") == 1
    assert r"\n" not in program
    where = f'("{shared_daemon.host}", {shared_daemon.port})'
    (tmp_path / "cliente.py").write_text(program.replace('("127.0.0.1", 12000)', where))
    command, typed, *rest = marked(PORTUGUESE, "sessao", "").splitlines()
    assert command == "$ python3 cliente.py"
    prompt, request = re.split(r"(?<=: )", typed, maxsplit=1)
    result = subprocess.run(
        [sys.executable, "cliente.py"],
        cwd=tmp_path,
        env=clean_environment(PYTHONIOENCODING="utf-8"),
        input=request,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=True,
    )
    assert result.stdout.splitlines() == [prompt + rest[0], *rest[1:]]


# Mark and language of each program, its file, what it needs, and the commands that run it.
PROGRAMS = [
    ("bash", "bash", "calc.bash", "bash", ["bash calc.bash"]),
    ("coproc", "bash", "calc.bash", "bash", ["bash calc.bash"]),
    ("perl", "perl", "calc.pl", "perl", ["perl calc.pl"]),
    ("node", "js", "calc.mjs", "node", ["node calc.mjs"]),
    ("c", "c", "calc.c", "cc", ["cc -Wall -Wextra -Werror -o calc calc.c", "./calc"]),
]


@pytest.mark.parametrize(
    ("mark", "language", "name", "needs", "commands"), PROGRAMS, ids=[row[0] for row in PROGRAMS]
)
def test_ten_lines_of_another_language_are_a_client(
    mark: str,
    language: str,
    name: str,
    needs: str,
    commands: list[str],
    shared_daemon: Daemon,
    tmp_path: Path,
) -> None:
    if shutil.which(needs) is None:
        pytest.skip(f"{needs} is not installed")
    program = marked(CLIENT_PAGE, mark, language)
    lines = [line for line in program.splitlines() if line.strip(" {}") and line[0] != "#"]
    assert len(lines) <= 10
    assert program.count("12000") >= 1
    assert shared_daemon.host == "127.0.0.1"
    (tmp_path / name).write_text(program.replace("12000", str(shared_daemon.port)))
    (tmp_path / "calcc").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    (tmp_path / "calcc").chmod(0o755)
    command, *replies = next(
        block.splitlines()
        for _, block in blocks(CLIENT_PAGE, "text")
        if block.startswith("$ bash calc.bash ")
    )
    requests = shlex.split(command)[3:]

    def run(*requests: str) -> tuple[str, int]:
        *builds, start = map(shlex.split, commands)
        for build in builds:
            subprocess.run(build, cwd=tmp_path, timeout=TIMEOUT, check=True)
        done = subprocess.run(
            [*start, *requests],
            cwd=tmp_path,
            env=clean_environment(PATH=f"{tmp_path}:{os.environ['PATH']}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return done.stdout, done.returncode

    assert run(*requests) == ("".join(f"{reply}\n" for reply in replies), 1)
    assert run("SOMA 2 2") == ("4\n", 0)


EXAMPLES = [
    (requests, replies)
    for table in re.findall(
        r"^\| example \| reply \|\n.*\n((?:\|.*\n)+)", PROTOCOL.read_text(), re.MULTILINE
    )
    for row in table.splitlines()
    for requests, replies in [[re.findall(r"`([^`]+)`", cell) for cell in row.split(" | ")]]
]


@pytest.mark.parametrize(("requests", "replies"), EXAMPLES, ids=lambda each: " ".join(each))
def test_each_example_gets_its_reply(
    requests: list[str], replies: list[str], shared_daemon: Daemon
) -> None:
    """``...`` stands for the words of an error, which are not stable."""
    with shared_daemon.connect() as connection:
        for request, shown in zip(requests, replies, strict=True):
            reply = ask(connection, f"{request}\n".encode()).decode().removesuffix("\n")
            known, dots, _ = shown.partition("...")
            assert reply.startswith(known) if dots else reply == shown


def test_each_error_has_an_example_that_gets_it(shared_daemon: Daemon) -> None:
    table = PROTOCOL.read_text().split("| code |", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| `([A-Z-]+)` \| .* \| `(.+)` \|$", table, re.MULTILINE)
    assert len(rows) > 8
    for code, request in rows:
        with shared_daemon.connect() as connection:
            reply = ask(connection, f"{request}\n".encode()).decode()
        assert reply.startswith(f"ERR {code} "), (request, reply)


def test_the_line_of_the_log_is_what_is_logged(start_daemon: Daemons) -> None:
    daemon = start_daemon()
    assert daemon.ask(b"SOMA 2 2\nDIV 1 0\n").startswith(b"4\nERR ")
    shown = marked(OPERATIONS, "log", "").strip()
    (line,) = daemon.logs(" ended: ")

    def without_numbers(text: str) -> str:
        return re.sub(r"(127\.0\.0\.1:|seconds=)[\d.]+", r"\1N", text)

    assert without_numbers(line).endswith(f" info: {without_numbers(shown)}")


def test_the_warning_of_an_expiry_is_what_is_logged() -> None:
    begin, end = datetime(2026, 9, 10, tzinfo=UTC), datetime(2026, 12, 9, 14, tzinfo=UTC)
    certificate = Certificate("CN=calc.example", "CN=ca", "01", begin, end)
    validity = Validity("tls_certificate", "/etc/calcd/tls.pem", certificate)
    warning = validity.warning((end - timedelta(days=12, hours=3)).timestamp())
    assert marked(OPERATIONS, "expiry", "") == f"warning: {warning}\n"


def test_the_line_of_a_refused_certificate_is_what_is_logged(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "calc ca")
    server, client = authority.issue("server", LOCAL), authority.issue("bob")
    authority.revoke(client.cert)
    checks = ("--tls-client-ca", authority.cert, "--tls-client-crl", authority.revocation_list())
    files = ("--tls-certificate", server.cert, "--tls-key", server.key, *checks)
    daemon = start_daemon("-l", "tls://127.0.0.1:0", *map(str, files))
    trust = ("--ssl-trustfile", authority.cert, "--ssl-cert", client.cert, "--ssl-key", client.key)
    asked = (*trust, "-e", "PING", "localhost", daemon.port_of("tls"))
    command = [*COMMAND, *map(str, asked)]
    subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    (line,) = daemon.logs("certificate refused: ")

    def without_numbers(text: str) -> str:
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text.strip())
        return re.sub(r"(serial )[0-9A-F]+|(connection )[\d.:]+(?=: )", r"\1\2N", text)

    shown = without_numbers(marked(OPERATIONS, "refused", ""))
    assert shown.count("TIME") == 4
    assert without_numbers(line).endswith(f" info: {shown}")


# -- What is started, or run by other tests --------------------------------------------------------


def test_each_marked_block_is_run_by_a_test() -> None:
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for document in DOCUMENTS:
        for mark, block in blocks(document, "sh"):
            if document == OPERATIONS:
                assert f'commands("{mark}")' in code, mark or block
            elif mark:
                assert mark in ("tests", "setup", "loop", "before-a-commit", "mutation")


def test_what_a_contributor_runs_is_what_is_run_before_a_change_lands() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    setup, rest = marked(README, "tests").split(" && ", 2)[:2]
    assert marked(CONTRIBUTING, "setup").strip() == f"{setup} && {rest}"
    before = marked(CONTRIBUTING, "before-a-commit").strip().replace("format .", "format --check .")
    assert before in " ".join(run.split())
    assert marked(CONTRIBUTING, "loop").strip() == ".venv/bin/pytest -q -n 2 tests/unit"


def test_the_mutation_tool_is_an_extra_and_knows_its_packages() -> None:
    commands = marked(CONTRIBUTING, "mutation")
    assert "'.[test,mutation]'" in commands
    assert "\nmutation =\n    mutmut " in (ROOT / "setup.cfg").read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]["only_mutate"]
    for package in re.findall(r"'calcd\.(\w+)\*'", commands):
        assert f"calcd/{package}/*" in packages


def commands_of(document: Path) -> list[str]:
    """Give the commands of a document that no other test runs."""
    text = document.read_text()
    return [
        *(
            line
            for mark, block in blocks(document, "sh")
            if not mark
            for line in block.splitlines()
        ),
        *re.findall(r"`((?:python3(?! -c)|\.venv/bin/python|\.venv/bin/pytest) [^`]+)`", text),
    ]


@of_each_document
def test_each_other_command_can_be_given(document: Path) -> None:
    """Its module or its path is there, and it knows its options."""
    for command in commands_of(document):
        program, *words = shlex.split(command)
        if program == ".venv/bin/pytest":
            for word in words:
                assert (ROOT / word).exists() or word in ("-q", "-m", "speed", "-p", "no:randomly")
            continue
        assert program in ("python3", ".venv/bin/python"), command
        assert words[0] == "-m", command
        assert importlib.util.find_spec(words[1]), command
        options = [word for word in words[2:] if word.startswith("-")]
        if options:
            told = subprocess.run(
                [sys.executable, "-m", words[1], "-h"],
                cwd=ROOT,
                env=clean_environment(),
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=True,
            )
            for option in options:
                assert re.search(rf"(?<!\S)\[?{option}\b", told.stdout), (command, option)


@in_a_network_of_its_own
@documents_with("sh")
def test_each_daemon_that_is_started_serves(document: Path, tmp_path: Path) -> None:
    starts = [each for each in commands_of(document) if each.startswith("python3 -m calcd ")]
    starts += [each for each in commands_of(document) if each == "python3 -m calcd"]
    for number, command in enumerate(starts):
        directory = tmp_path / str(number)
        directory.mkdir()
        options = command.removeprefix("python3 -m calcd").strip()
        with serving(directory, options or "-l tcp://localhost:12000"):
            pass


# -- Tables ----------------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_table() -> None:
    assert first_cells(OPERATIONS, "setting") == [row.name for row in SETTINGS]
    for row in SETTINGS:
        if row.metadata["text"]:
            assert f"| `{row.name}` | `{row.metadata['text']}` |" in OPERATIONS.read_text()


def test_the_operations_are_those_of_the_table() -> None:
    assert first_cells(PROTOCOL, "operation") == [name for row in TABLE for name in row.names[::-1]]
    rows = re.findall(
        r"^\| `([A-Z0-9]+)`.*? \| (\d+|\d or \S+) \|", PROTOCOL.read_text(), re.MULTILINE
    )
    operands = dict(rows)
    for row in TABLE:
        if not row.takes_text:
            shown = operands[row.names[-1]]
            least, _, most = shown.partition(" or ")
            assert int(least) == row.min_operands, row.names
            assert (float("inf") if most == "more" else int(most or least)) == row.max_operands, (
                row.names
            )


def test_the_error_codes_are_those_of_the_code() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "calcd").rglob("*.py"))
    raised = set(re.findall(r'(?:Error|fail|failure)\(\s*(?:job,\s*)?"([A-Z-]+)"', sources))
    assert raised == set(first_cells(PROTOCOL, "code"))
    assert sorted(raised) == sorted(CODES)


def test_the_ways_that_a_connection_ends_are_those_of_the_code() -> None:
    sentence = OPERATIONS.read_text().split("- `how` is ", 1)[1].split("\n\n", 1)[0]
    by_name = {"tls-error", "network-error"}  # of these, the log has the error's own name
    ways = {each.value for each in CloseReason} | {*ENDS}
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == ways - by_name


def test_the_clients_options_are_those_it_tells() -> None:
    usage = next(
        line for line in CLIENT_PAGE.read_text().splitlines() if line.startswith("calcc [-")
    )
    told = subprocess.run(
        [*COMMAND, "-h"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert " ".join(usage.split()) in " ".join(told.stdout.split())


def upward_imports() -> Iterator[tuple[str, str]]:
    """Give each module that imports from a package above its own, and what it imports."""
    for place, layer in enumerate(LAYERS):
        for path in sorted((ROOT / "calcd" / layer).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    for above in LAYERS[place + 1 :]:
                        if f"{name}.".startswith(f"calcd.{above}."):
                            yield name_of(path), name


def test_imports_point_one_way_but_for_those_that_are_told() -> None:
    rows = re.findall(r"^\| `(calcd/\S+\.py)` \| `(\S+)` \|$", DESIGN.read_text(), re.MULTILINE)
    assert set(upward_imports()) <= set(rows)


# -- Form ------------------------------------------------------------------------------------------


@of_each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in links(document):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@of_each_document
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:calcd|tests|etc|systemd|docs)/[\w./@-]+)`", document.read_text())
    if document == DESIGN:
        named += [
            f"calcd/{name}"
            for name in re.findall(
                r"`((?:core|config|net|daemon|client)/\w+\.py)`", DESIGN.read_text()
            )
        ]
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


# Private words, as patterns: a search of the tree for them finds only uses.
BANNED = [
    *("lobb[y]", "partin[g]", "dea[r]", "glanc[e]"),
    *("see[_]out", "hand[_]on", "whoeve[r]", "look[_]round"),
]


@of_each_document
def test_words_are_those_of_the_field(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE).lower()
    assert not [word for word in BANNED if re.search(rf"\b{word}\b", text)]
    assert "is no operation" not in text
