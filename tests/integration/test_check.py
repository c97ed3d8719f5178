"""calcd -t: errors in the settings and on this machine that would prevent a start."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import stored
from helpers import TIMEOUT, Daemons, clean_environment

from calcd.config.settings import read_settings
from calcd.daemon.check import configuration_errors

# Root can write to all files: the tests of files it cannot write give up that capability.
_WITHOUT_OVERRIDE = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]

needs_setpriv = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root, without setpriv"
)


def check(*options: str) -> subprocess.CompletedProcess[str]:
    """Run calcd -t with a free port, and without root's capability to ignore file modes."""
    return subprocess.run(
        [
            *(_WITHOUT_OVERRIDE if os.geteuid() == 0 and shutil.which("setpriv") else []),
            *(sys.executable, "-m", "calcd", "-t", "-l", "tcp://127.0.0.1:0", *options),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        check=False,
    )


def faults(*options: str) -> list[str]:
    """Return the errors of calcd -t, without the program's name."""
    ended = check(*options)
    assert ended.returncode == 2, ended
    assert re.fullmatch(r"calcd: reads .*\n", ended.stdout)
    lines = ended.stderr.splitlines()
    assert all(line.startswith("calcd: ") for line in lines), lines
    return [line.removeprefix("calcd: ") for line in lines]


def warnings(*options: str) -> list[str]:
    """Return what calcd -t warns of, with settings that are right."""
    ended = check(*options)
    assert ended.returncode == 0, ended
    assert re.fullmatch(r"calcd: reads .*\ncalcd: the settings are right\n", ended.stdout)
    lines = ended.stderr.splitlines()
    assert all(line.startswith("calcd: warning: ") for line in lines), lines
    return [line.removeprefix("calcd: warning: ") for line in lines]


def assert_right(*options: str) -> None:
    assert warnings(*options) == []


def test_right_settings_are_accepted(tmp_path: Path) -> None:
    log = tmp_path / "calcd.log"
    assert_right("--log-to", str(log), "--pidfile", str(tmp_path / "calcd.pid"))
    assert os.listdir(tmp_path) == [], "it makes no files"


def test_a_user_who_exists_is_right() -> None:
    told = warnings("--user", pwd.getpwuid(os.getuid()).pw_name)
    assert told == ["--user: has no effect without -d"]


def test_a_port_for_metrics_is_tried() -> None:
    assert_right("--metrics", "http://127.0.0.1:0", "--reuse-port", "yes")
    (told,) = faults("--metrics", "http://192.0.2.1:9112")
    assert told == (
        "--metrics: cannot listen on http://192.0.2.1:9112: Cannot assign requested address: "
        "this machine has no such address"
    )


def test_all_errors_are_reported(tmp_path: Path) -> None:
    told = faults(
        *("-l", f"unix://{tmp_path}/none/sock", "--log-to", f"{tmp_path}/none/log"),
        *("--pidfile", f"{tmp_path}/none/none/pid", "--user", "no-such-user"),
    )
    assert [line.split(":")[0] for line in told] == ["--listen", "--pidfile", "--user", "--log-to"]


def test_the_log_in_a_directory_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "calcd.log"
    assert faults("--log-to", str(path)) == [
        f"--log-to: '{path}': there is no directory {path.parent}: make it first"
    ]


def test_the_log_that_is_a_directory(tmp_path: Path) -> None:
    assert faults("--log-to", str(tmp_path)) == [
        f"--log-to: '{tmp_path}' is a directory: name a file in it"
    ]


@needs_setpriv
def test_the_log_that_cannot_be_written(tmp_path: Path) -> None:
    log = tmp_path / "calcd.log"
    wrong = [f"--log-to: '{log}' cannot be written: choose another path or user"]
    log.touch(mode=0o444)
    assert faults("--log-to", str(log)) == wrong
    log.unlink()
    tmp_path.chmod(0o555)
    assert faults("--log-to", str(log)) == wrong
    tmp_path.chmod(0o755)


def test_the_log_that_is_a_fifo_without_a_reader(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert faults("--log-to", str(fifo)) == [
        f"--log-to: '{fifo}': no process reads this FIFO: start its reader first"
    ]
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert_right("--log-to", str(fifo))
    finally:
        os.close(reader)


def test_the_log_that_cannot_be_created(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 256)
    assert faults("--log-to", str(path)) == [
        f"--log-to: '{path}': File name too long: choose another path"
    ]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert faults("--log-to", str(loop)) == [
        f"--log-to: '{loop}': Too many levels of symbolic links: choose another path"
    ]


def test_the_pidfiles_directory_is_made_by_the_daemon(tmp_path: Path) -> None:
    assert_right("--pidfile", str(tmp_path / "calcd" / "calcd.pid"))


def test_the_pidfile_in_a_directory_that_the_daemon_does_not_make(tmp_path: Path) -> None:
    path = tmp_path / "none" / "calcd" / "calcd.pid"
    assert faults("--pidfile", str(path)) == [
        f"--pidfile: '{path.parent}': there is no directory {path.parent.parent}: make it first"
    ]
    (tmp_path / "none").touch()
    assert faults("--pidfile", str(path.parent)) == [
        f"--pidfile: '{path.parent}': there is no directory {path.parent.parent}: make it first"
    ]


def test_the_pidfile_that_is_a_directory(tmp_path: Path) -> None:
    assert faults("--pidfile", str(tmp_path)) == [
        f"--pidfile: '{tmp_path}' is a directory: name a file in it"
    ]


@needs_setpriv
def test_the_pidfile_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    for path in tmp_path / "pid", tmp_path / "calcd":
        assert faults("--pidfile", str(path)) == [
            f"--pidfile: '{path}' cannot be written: choose another path or user"
        ]
    tmp_path.chmod(0o755)


def test_no_such_user_and_no_such_group() -> None:
    assert faults("--user", "no-such-user") == ["--user: 'no-such-user': there is no such user"]
    assert faults("--group", "no-such-group") == [
        "--group: 'no-such-group': there is no such group"
    ]


def test_missing_python_daemon_is_an_error_with_d_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "daemon", None)
    settings = read_settings(None, {"listen": "tcp://127.0.0.1:0", "log_to": "stderr"})
    assert configuration_errors(settings) == []
    (error,) = configuration_errors(settings, background=True)
    assert str(error) == "-d needs python-daemon: pip install python-daemon, or leave -d out"


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    settings = read_settings(None, {"listen": "tcp://calcd.example:12000"})
    assert [*map(str, configuration_errors(settings))] == [
        "--listen: cannot listen on tcp://calcd.example:12000: Name or service not known: "
        "is the name right?"
    ]


def test_an_address_that_is_another_machines() -> None:
    assert faults("-l", "tcp://192.0.2.1:12000") == [
        "--listen: cannot listen on tcp://192.0.2.1:12000: Cannot assign requested address: "
        "this machine has no such address"
    ]


def test_a_port_in_use_is_no_error() -> None:
    """It may be the running daemon that uses it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_right("-l", f"tcp://127.0.0.1:{taken.getsockname()[1]}")


def test_it_does_not_disturb_the_daemon_that_runs(start_daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "calcd.sock"
    options = ("--reuse-port", "yes", "-l", f"unix://{path}")
    daemon = start_daemon("-l", "tcp://127.0.0.1:0", *options)
    assert_right("-l", daemon.endpoints[0], *options)
    assert path.exists()
    assert daemon.ask(b"SOMA 2 2\n") == b"4\n"


def test_a_unix_socket_in_a_directory_that_is_missing(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none/sock"
    assert faults("-l", url) == [
        f"--listen: cannot listen on {url}: No such file or directory: make its directory first"
    ]


def test_a_unix_socket_of_a_group_that_does_not_exist(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/sock?mode=0660&group=no-such-group"
    assert faults("-l", url) == [
        f"--listen: cannot listen on {url}: "
        "there is no group 'no-such-group': make it first, or name another"
    ]
    assert_right("-l", f"unix://{tmp_path}/sock?mode=0660&group={os.getegid()}")
    assert os.listdir(tmp_path) == [], "it makes no files"


@needs_setpriv
def test_a_unix_socket_in_a_directory_of_anothers(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    (fault,) = faults("-l", f"unix://{tmp_path}/sock")
    assert fault.endswith(
        "Permission denied: only root can use ports below 1024 and other users' directories"
    )
    tmp_path.chmod(0o755)


def test_a_regular_file_in_the_sockets_place(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    path.write_text("precious")
    (fault,) = faults("-l", f"unix://{path}")
    assert fault.endswith("the file exists and is not a socket: remove it or choose another path")
    assert path.read_text() == "precious"


def test_a_stale_socket_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert_right("-l", f"unix://{path}")
    assert path.exists()


@needs_setpriv
def test_a_configuration_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"
    file.touch(mode=0)
    assert faults("-c", str(file)) == [f"{file}: Permission denied"]


def test_wrong_values_are_reported_as_at_a_start(tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"
    file.write_text("[calcd]\nprecision = 0\nrounding = ?\n")
    assert [line.split(" expected")[0] for line in faults("-c", str(file))] == [
        f"{file}:2: precision: '0':",
        f"{file}:3: rounding: '?':",
    ]


def test_an_error_has_the_line_of_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"
    file.write_text("[calcd]\n\nuser = no-such-user\n")
    assert faults("-c", str(file)) == [f"{file}:3: user: 'no-such-user': there is no such user"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_the_log_is_checked_as_the_user_that_the_daemon_becomes(tmp_path: Path) -> None:
    options = ("--log-to", f"{tmp_path}/calcd.log", "--user", "nobody")
    warnings(*options)
    assert faults("-d", "--pidfile", f"{tmp_path}/pid", *options) == [
        f"--log-to: '{tmp_path}/calcd.log' cannot be written: choose another path or user"
    ]


def test_it_names_what_it_reads(tmp_path: Path) -> None:
    file, pair = tmp_path / "calcd.conf", stored("server").in_one_file(tmp_path)
    file.write_text(f"[calcd]\ntls_certificate = {pair}\nidle_timeout = 3\n")
    ended = check("-c", str(file), "-l", "tls://127.0.0.1:0", "--max-line", "100")
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines() == [
        f"calcd: reads {file}, and the options --listen --max-line",
        f"calcd: reads {pair}, the tls_certificate",
        "calcd: the settings are right",
    ]
    default = check()
    missing = not Path("/etc/calcd/calcd.conf").exists()
    first = "reads no file, as there is no" if missing else "reads"
    assert default.stdout.startswith(
        f"calcd: {first} /etc/calcd/calcd.conf, and the options --listen\n"
    )
