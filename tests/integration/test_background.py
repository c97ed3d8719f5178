"""calcd -d: the start as the shell sees it, the process, and its user."""

import grp
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from background_daemon import USER, Background
from helpers import ROOT, TIMEOUT, wait_until

from calcd.config.errors import ConfigError
from calcd.daemon.detach import find_account

# What the shell sees


def test_start_returns_when_the_next_client_is_answered(background: Background) -> None:
    background.serve()
    assert background.ask(b"SOMA 2 2\n") == b"4\n"


def test_metrics_are_served_in_the_background(background: Background) -> None:
    background.serve("--metrics", "http://127.0.0.1:0")
    found = re.search(
        r"listening on http://127\.0\.0\.1:(\d+) for", background.log_file.read_text()
    )
    assert found
    with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=TIMEOUT) as answer:
        assert b"\ncalcd_connections_open 0.0\n" in answer.read()


def test_pipeline_ends_with_the_start(background: Background) -> None:
    # If the daemon kept the pipe, cat would wait for its end as long as the daemon runs.
    options = ("-d", "-l", "tcp://127.0.0.1:0", "--log-to", background.log_file)
    with background.command(*options) as start:
        cat = subprocess.run(["cat"], stdin=start.stdout, capture_output=True, timeout=TIMEOUT)
        assert start.wait(TIMEOUT) == 0
    assert cat.stdout == b""
    assert background.ask(b"PING\n") == b"PONG\n"


FAILURES = {
    "port-taken": (["-l", "tcp://127.0.0.1:{port}"], "choose another endpoint"),
    "log-without-directory": (["--log-to", "{directory}/no/log"], "name another with --log-to"),
    "log-is-a-directory": (["--log-to", "{directory}"], "name another with --log-to"),
    "log-nobody-can-make": (["--log-to", "/proc/no"], "name another with --log-to"),
    "pidfile-without-directory": (["--pidfile", "{directory}/no/such/pid"], "with --pidfile"),
    "pidfile-under-a-file": (["--pidfile", "/dev/null/calcd.pid"], "with --pidfile"),
    "no-such-user": (["--user", "no-such-user"], "there is no such user"),
    "no-such-group": (["--group", "no-such-group"], "there is no such group"),
}


@pytest.mark.parametrize(("options", "advice"), FAILURES.values(), ids=FAILURES)
def test_failed_start_says_why_in_one_line_and_leaves_nothing(
    options: list[str], advice: str, background: Background
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"port": taken.getsockname()[1], "directory": background.directory}
        failed = background.start(
            *("-l", f"unix://{background.socket_file}"), *(each.format(**names) for each in options)
        )
    # What names nobody is a wrong setting; all else may be right at the next start.
    assert_failed(failed, background, advice, 2 if "there is no such" in advice else 1)


def assert_failed(
    failed: subprocess.CompletedProcess[str], background: Background, words: str, status: int = 1
) -> None:
    assert (failed.returncode, failed.stdout) == (status, "")
    assert failed.stderr.startswith("calcd: ")
    assert failed.stderr.count("\n") == 1, failed.stderr
    assert words in failed.stderr
    assert background.processes() == []
    assert not background.pidfile.exists()
    assert not background.socket_file.exists()


def test_wrong_setting_is_status_2(background: Background) -> None:
    assert_failed(background.start("--max-line", "long"), background, "--max-line: 'long'", 2)


def test_missing_python_daemon_is_reported(background: Background) -> None:
    failed = background.start(code="import sys; sys.modules['daemon'] = None")
    assert_failed(failed, background, "pip install python-daemon, or leave -d out")


def test_failure_of_python_daemon_is_reported(background: Background) -> None:
    failed = background.start(
        *("-l", f"unix://{background.socket_file}"),
        code="import daemon\ndaemon.DaemonContext.open = lambda self: 1 // 0",
    )
    assert_failed(failed, background, "cannot go into the background: integer division")


def test_bug_during_the_start_is_in_the_log(background: Background) -> None:
    failed = background.start(
        code="import calcd.daemon.main\ncalcd.daemon.main.Server = lambda *_: 1 // 0"
    )
    assert_failed(failed, background, "ended by a bug, ZeroDivisionError")
    assert "ZeroDivisionError" in background.log


def test_interrupted_start_is_called_off(background: Background) -> None:
    with background.paused_start("-d") as start:
        start.send_signal(signal.SIGINT)
        assert start.communicate(timeout=TIMEOUT) == ("", "")
    assert start.returncode == 1
    background.resume_start()
    wait_until(lambda: not background.processes(), "the daemon's end")
    assert "stopping: " in background.log
    assert not background.pidfile.exists()


def test_daemon_that_is_killed_before_it_serves_is_reported(background: Background) -> None:
    with background.paused_start("-d") as start:
        os.kill(background.pid, signal.SIGKILL)
        _, told = start.communicate(timeout=TIMEOUT)
    assert start.returncode == 1
    assert told.startswith("calcd: the daemon died before it served")


def test_missing_syslog_is_a_warning(background: Background) -> None:
    where = str(background.directory / "no-syslog")
    started = background.start(
        *("--log-to", "syslog", "-l", f"unix://{background.socket_file}"),
        code=f"import calcd.daemon.log; calcd.daemon.log.SYSLOG = {where!r}",
    )
    assert (started.returncode, started.stdout) == (0, "")
    assert started.stderr.startswith(f"calcd: no syslog at {where}: ")
    assert started.stderr.count("\n") == 1
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(background.socket_file))
        client.sendall(b"PING\n")
        assert client.recv(100) == b"PONG\n"


def test_log_goes_to_syslog(background: Background) -> None:
    where = str(background.directory / "syslog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(where)
        syslog.settimeout(TIMEOUT)
        background.serve(
            "--log-to",
            "syslog",
            code=f"import calcd.daemon.log; calcd.daemon.log.SYSLOG = {where!r}",
        )
        assert syslog.recv(1000).startswith(b"<30>calcd[%d]: calcd " % background.pid)


# The process


def test_nothing_of_the_shell_is_left(background: Background) -> None:
    read_end, write_end = os.pipe()
    try:
        background.serve(pass_fds=[write_end])
        pipe = os.readlink(f"/proc/self/fd/{write_end}")
    finally:
        os.close(read_end)
        os.close(write_end)
    descriptors = Path(f"/proc/{background.pid}/fd")
    assert [os.readlink(descriptors / each) for each in "012"] == [os.devnull] * 3
    assert pipe not in {os.readlink(each) for each in descriptors.iterdir()}


def test_streams_that_the_shell_closed_do_not_matter(background: Background) -> None:
    background.serve(preexec_fn=lambda: os.closerange(0, 3))
    descriptors = Path(f"/proc/{background.pid}/fd")
    assert [os.readlink(descriptors / each) for each in "012"] == [os.devnull] * 3
    assert background.ask(b"PING\n") == b"PONG\n"


def test_it_has_a_session_directory_and_umask_of_its_own(background: Background) -> None:
    background.serve(umask=0)
    session = os.getsid(background.pid)
    # It does not lead its session: then a terminal that it opens could become its own.
    assert session not in (os.getsid(0), background.pid)
    assert os.readlink(f"/proc/{background.pid}/cwd") == "/"
    assert background.status("Umask") == ["0022"]


def test_others_reach_its_files_whatever_the_umask(background: Background) -> None:
    background.serve("-l", f"unix://{background.socket_file}", umask=0o077)
    paths = (background.pidfile.parent, background.pidfile, background.socket_file)
    assert [oct(path.stat().st_mode & 0o777) for path in paths] == ["0o755", "0o644", "0o666"]


def test_reload_finds_what_relative_paths_meant_at_the_start(background: Background) -> None:
    config = background.directory / "calcd.conf"
    config.write_text("[calcd]\nlog_level = info\n")
    background.serve(
        *("-c", "calcd.conf", "--log-to", "./calcd.log", "--pidfile", "./run/calcd.pid")
    )
    config.write_text("[calcd]\nlog_level = debug\n")
    old_log = background.log_file.rename(background.directory / "calcd.log.1")
    assert background.act("reload") == (0, "", "")
    wait_until(lambda: background.log_file.exists() and "log_level=debug" in background.log, "it")
    assert "restart" not in background.log + old_log.read_text()


# Its user

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
# Users may not be able to read root's Python: import late imports first.
AS_USER = f"""
import calcd.daemon.main, daemon, encodings.idna, os
calcd.daemon.main.parse([])
os.setgroups([])
os.setgid({USER.pw_gid})
os.setuid({USER.pw_uid})
"""


@root_only
def test_daemon_becomes_the_user_after_binding(of_user: Background) -> None:
    # Port 1 of an address that no other run on this machine uses: it has our process id in it.
    high, middle, low = os.getpid().to_bytes(3, "big")  # Linux's have at most 22 bits
    of_user.serve("-l", f"tcp://127.{128 + high}.{middle}.{low}:1", "--user", USER.pw_name)
    assert of_user.ask(b"PING\n") == b"PONG\n"
    assert of_user.status("Uid") == [str(USER.pw_uid)] * 4
    assert of_user.status("Gid") == [str(USER.pw_gid)] * 4


@root_only
def test_supplementary_groups_are_the_users(of_user: Background) -> None:
    of_user.serve("--user", USER.pw_name, extra_groups=[0, 4, 24])
    of_users = os.getgrouplist(USER.pw_name, USER.pw_gid)
    assert sorted(map(int, of_user.status("Groups"))) == sorted(of_users)


@root_only
def test_group_takes_the_place_of_the_users(of_user: Background) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, USER.pw_gid))
    of_user.serve("--user", USER.pw_name, "--group", group.gr_name)
    assert of_user.status("Uid") == [str(USER.pw_uid)] * 4
    assert of_user.status("Gid") == [str(group.gr_gid)] * 4


@root_only
def test_group_alone_keeps_the_user(of_user: Background) -> None:
    of_user.serve("--group", grp.getgrgid(USER.pw_gid).gr_name)
    assert of_user.status("Uid") == ["0"] * 4
    assert of_user.status("Gid") == [str(USER.pw_gid)] * 4


@root_only
def test_log_is_the_users(of_user: Background) -> None:
    of_user.serve("--user", USER.pw_name)
    assert of_user.log_file.stat().st_uid == USER.pw_uid
    of_user.log_file.rename(of_user.directory / "calcd.log.1")
    assert of_user.act("reload") == (0, "", "")
    wait_until(of_user.log_file.exists, "a new log")
    assert of_user.log_file.stat().st_uid == USER.pw_uid


@root_only
def test_log_that_the_user_cannot_write_is_reported(of_user: Background) -> None:
    of_user.log_file.touch(0o600)
    failed = of_user.start("--user", USER.pw_name, "-l", f"unix://{of_user.socket_file}")
    assert_failed(failed, of_user, f"as {USER.pw_name}: Permission denied: name another")


@root_only
def test_user_removes_files_that_root_created(of_user: Background) -> None:
    of_user.serve("--user", USER.pw_name, "-l", f"unix://{of_user.socket_file}")
    assert of_user.socket_file.exists()
    assert of_user.act("stop") == (0, "", "")
    assert list(of_user.pidfile.parent.iterdir()) == []


@root_only
@pytest.mark.parametrize("code", ["", AS_USER], ids=["root", "its user"])
def test_root_and_its_user_may_act_on_it(code: str, of_user: Background) -> None:
    of_user.serve("--user", USER.pw_name)
    assert of_user.pidfile.stat().st_uid == 0
    for action in "status", "reload", "stop":
        done = of_user.run("-s", action, code=code)
        assert (done.returncode, done.stderr) == (0, "")
    assert "reloading" in of_user.log
    assert of_user.processes() == []


@root_only
def test_pidfile_that_the_user_may_not_remove_is_emptied(of_user: Background) -> None:
    of_user.pidfile.parent.mkdir()  # so it is root's
    of_user.serve("--user", USER.pw_name)
    assert of_user.act("stop") == (0, "", "")
    assert of_user.pidfile.read_text() == ""
    of_user.serve("--user", USER.pw_name)


@root_only
def test_without_root_it_serves_as_the_same_user(of_user: Background) -> None:
    of_user.serve("--user", USER.pw_name, code=AS_USER)
    assert of_user.ask(b"PING\n") == b"PONG\n"
    assert of_user.status("Uid") == [str(USER.pw_uid)] * 4


def test_only_root_becomes_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: USER.pw_uid)
    monkeypatch.setattr(os, "getgid", lambda: USER.pw_gid)
    assert find_account("", "") is None
    assert find_account(USER.pw_name, "") is None  # this process runs as that user
    with pytest.raises(ConfigError, match="start calcd as root"):
        find_account("nobody", "")


# The foreground


def test_foreground_needs_nothing_installed() -> None:
    # -S: without site-packages; -E and an empty environment: with nothing that leads elsewhere.
    command = [sys.executable, "-S", "-E", "-m", "calcd", "-l", "tcp://127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=ROOT, env={}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            log = iter(process.stderr.readline, "")
            address = next(line for line in log if "listening on tcp://" in line)
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
                client.sendall(b"PING\n")
                assert client.recv(100) == b"PONG\n"
            process.terminate()
            assert process.wait(TIMEOUT) == 0, [*log]
        finally:
            process.kill()
