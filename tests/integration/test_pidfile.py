"""The pidfile and calcd -s: which process holds it, and which is never signalled."""

import fcntl
import os
import platform
import pwd
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from background_daemon import Background
from helpers import TIMEOUT, clean_environment, wait_until

from calcd.config.errors import ConfigError
from calcd.daemon import actions, pidfile, units
from calcd.daemon.detach import Account
from calcd.daemon.pidfile import Pidfile, find_holder
from calcd.daemon.units import Unit

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of others")
USER = pwd.getpwnam("daemon") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calcd.pid"


@contextmanager
def held(path: Path) -> Iterator[Pidfile]:
    pidfile = Pidfile(str(path))
    try:
        yield pidfile
    finally:
        pidfile.remove()


class Other:
    """Another process. It blocks the signals that calcd -s sends, and reports them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def resume(self) -> str:
        """Let it run to its next ``input()``; return the line that it printed before."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def signals(self) -> list[str]:
        """Return the names of the signals it got; it ends then."""
        return self.resume().split()


@contextmanager
def other(code: str = "", *arguments: object) -> Iterator[Other]:
    """Start another process that runs ``code`` before it waits."""
    program = f"""
import ctypes, fcntl, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1])
{code}
print(flush=True)
input()
print(*sorted(each.name for each in signal.sigpending()), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "\n"
            yield Other(process)
        finally:
            process.kill()


# A daemon's locks, in two steps; the second is after an input().
DAEMON = """
from calcd.daemon.pidfile import Pidfile
pidfile = Pidfile(sys.argv[1])
print(flush=True)
input()
pidfile.write()
"""
# The daemon's user takes both locks, and writes the pid of another process.
FORGER = """
if "after" in sys.argv:
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
if "before" in sys.argv:
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(fd, fcntl.LOCK_EX)
fcntl.lockf(fd, fcntl.LOCK_EX)
os.pwrite(fd, sys.argv[4].encode(), 0)
"""
# A process takes the flock, and shares its descriptors with a child that takes the record lock
# and ends. The kernel still returns the child's pid.
SHARER = """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(fd, fcntl.LOCK_EX)
CLONE_FILES = 0x400
pid = ctypes.CDLL(None).syscall(int(sys.argv[2]), CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    fcntl.lockf(fd, fcntl.LOCK_EX)
    os.pwrite(fd, f"{os.getpid()}\\n".encode(), 0)
    os._exit(0)
os.waitpid(pid, 0)
"""
SYS_CLONE = {"x86_64": 56, "aarch64": 220}


def forger(path: Path, victim: int, open_file: str = "after") -> AbstractContextManager[Other]:
    """Be the daemon's user; ``open_file`` ``after`` root made the pidfile, or ``before``."""
    return other(FORGER, path, USER.pw_uid, USER.pw_gid, victim, open_file)


# The file


def test_it_holds_the_pid_until_it_is_removed(path: Path) -> None:
    with held(path) as pidfile:
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_holder_is_known_by_its_locks(path: Path) -> None:
    assert find_holder(str(path)) is None
    with other(DAEMON, path) as daemon:
        assert find_holder(str(path)) == 0  # it may fork yet
        daemon.resume()
        assert find_holder(str(path)) == daemon.pid
    assert find_holder(str(path)) is None
    path.write_text("1\n")
    assert find_holder(str(path)) is None


LEFT_OVERS = {
    "dead": "4194305\n",  # more than a pid can be
    "init's": "1\n",
    "the-test's": f"{os.getpid()}\n",
    "empty": "",
    "garbage": "\0not a pid\n" * 100,
}


@pytest.mark.parametrize("text", LEFT_OVERS.values(), ids=LEFT_OVERS)
def test_old_text_in_it_does_not_matter(text: str, path: Path) -> None:
    path.write_text(text)
    with held(path) as pidfile:
        assert path.read_text() == ""  # it is not the new holder's pid
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"


def test_second_holder_gets_the_pid_of_the_first(path: Path) -> None:
    with other(DAEMON, path) as first:
        with pytest.raises(ConfigError, match="it is just starting"):
            Pidfile(str(path))
        first.resume()
        with pytest.raises(ConfigError, match=rf"pid {first.pid}\): stop it with calcd -s stop"):
            Pidfile(str(path))


def test_read_locks_do_not_make_a_holder(path: Path) -> None:
    path.touch()
    with path.open() as reader, path.open() as file:
        fcntl.flock(reader, fcntl.LOCK_EX)
        # A lock of the open file, as this process's own would not be seen.
        lock = struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        assert find_holder(str(path)) == 0


def test_holder_without_a_pid_here_is_an_error(path: Path) -> None:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lock = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)  # for which the kernel gives -1
        with pytest.raises(ConfigError, match="not visible here"):
            find_holder(str(path))


def test_record_lock_of_another_process_is_an_error(path: Path) -> None:
    code = "file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX)"
    with (
        other(code, path),
        held(path) as pidfile,
        pytest.raises(ConfigError, match="another process has a record lock"),
    ):
        pidfile.write()


def test_shared_lock_that_stays_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfile, "_ATTEMPTS", 2)
    path.touch()
    with path.open() as reader_file:
        fcntl.flock(reader_file, fcntl.LOCK_SH)
        with pytest.raises(ConfigError, match="keeps a shared lock"):
            Pidfile(str(path))


def test_shared_lock_for_a_moment_does_not_keep_a_daemon_out(path: Path) -> None:
    path.touch()
    taken = threading.Event()

    def take() -> None:
        with held(path):
            taken.set()

    with path.open() as reader_file:
        fcntl.flock(reader_file, fcntl.LOCK_SH)  # as find_holder() does for a moment
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)
    thread.join(TIMEOUT)
    assert taken.is_set()


def test_file_that_is_removed_just_before_it_is_locked_is_created_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def lock_too_late(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()  # as the daemon does that held it until now
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with held(path):
        assert find_holder(str(path)) == 0


def test_missing_directory_is_created_and_given_to_the_account(tmp_path: Path) -> None:
    path = tmp_path / "run" / "calcd.pid"
    account = Account("nobody", 65534, 65534) if os.getuid() == 0 else None
    pidfile = Pidfile(str(path), account)
    assert path.parent.stat().st_uid == (account.uid if account else os.getuid())
    pidfile.remove()


def test_existing_directory_keeps_its_owner(tmp_path: Path) -> None:
    Pidfile(str(tmp_path / "calcd.pid"), Account("nobody", 65534, 65534)).remove()
    assert tmp_path.stat().st_uid == os.getuid()


def replaced_by_link(path: Path, victim: Path) -> None:
    path.rmdir()
    path.symlink_to(victim)


def replaced_by_another(path: Path, victim: Path) -> None:
    path.rmdir()
    victim.rename(path)


@pytest.mark.parametrize("replace", [replaced_by_link, replaced_by_another])
def test_directory_that_is_replaced_is_not_given_away(
    replace: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    mkdir = os.mkdir

    def mkdir_and_replace(path: str, mode: int) -> None:
        mkdir(path, mode)
        replace(Path(path), victim)

    monkeypatch.setattr(os, "mkdir", mkdir_and_replace)
    with pytest.raises(ConfigError, match="cannot be written"):
        Pidfile(str(tmp_path / "run" / "calcd.pid"), Account("x", USER.pw_uid, USER.pw_gid))
    assert (tmp_path / "run").stat().st_uid == os.getuid()
    assert not (tmp_path / "run" / "calcd.pid").exists()


def hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def symbolic_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


PLANTED = [
    (hard_link, "it has another name"),
    (symbolic_link, "it is a symbolic link"),
    (fifo, "it is not a regular file"),
]


@pytest.mark.parametrize(("plant", "reason"), PLANTED)
def test_file_that_calcd_does_not_create_is_refused(
    plant: Callable[[Path, Path], None],
    reason: str,
    background: Background,
    capfd: pytest.CaptureFixture[str],
) -> None:
    victim = background.directory / "victim"
    background.pidfile.parent.mkdir()
    with other() as named:
        victim.write_text(f"{named.pid}")
        plant(background.pidfile, victim)
        before = background.pidfile.lstat().st_ino
        for action in actions.ACTIONS:
            assert actions.act(action, str(background.pidfile), 0) == 1
        assert named.signals() == []
    told = f"calcd: pidfile: '{background.pidfile}' cannot be used: {reason}"
    assert capfd.readouterr().err.count(told) == len(actions.ACTIONS)
    for start in background.start(), background.run("-t"):
        assert start.returncode == (2 if "-t" in start.args else 1)
        assert f"calcd: --pidfile: '{background.pidfile}' cannot be used: {reason}" in start.stderr
        assert start.stderr.count("\n") == 1
    assert victim.read_text() == f"{named.pid}"
    assert background.pidfile.lstat().st_ino == before


@root_only
def test_root_does_not_use_a_file_of_another_user(path: Path) -> None:
    path.write_text("precious")
    os.chown(path, USER.pw_uid, USER.pw_gid)
    with pytest.raises(ConfigError, match=f"it belongs to uid {USER.pw_uid}"):
        Pidfile(str(path))
    assert path.read_text() == "precious"


def test_directory_in_its_place_is_left_alone(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigError, match="name another with --pidfile"):
        Pidfile(str(path))
    assert stat.S_ISDIR(path.lstat().st_mode)


def test_file_of_another_is_not_removed(path: Path) -> None:
    pidfile = Pidfile(str(path))
    path.unlink()
    path.write_text("another's\n")
    pidfile.remove()
    assert path.read_text() == "another's\n"


def test_file_that_cannot_be_removed_is_emptied(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(path)

    pidfile = Pidfile(str(path))
    pidfile.write()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        pidfile.remove()
    assert path.read_text() == ""
    assert find_holder(str(path)) is None


# Daemons


def test_daemon_holds_it_until_it_has_stopped(background: Background) -> None:
    background.serve()
    assert background.processes() == [background.pid] == [find_holder(str(background.pidfile))]
    assert background.act("stop") == (0, "", "")
    assert not background.pidfile.exists()


def test_second_start_is_refused(background: Background) -> None:
    background.serve()
    second = background.start()
    assert (second.returncode, second.stdout) == (1, "")
    assert f"running already (pid {background.pid}): stop it with" in second.stderr
    assert second.stderr.count("\n") == 1
    assert background.processes() == [background.pid]
    assert background.ask(b"PING\n") == b"PONG\n"


def test_one_of_many_starts_at_once_wins(background: Background) -> None:
    options = ("-d", "-l", "tcp://127.0.0.1:0", "--log-to", background.log_file)
    with ExitStack() as stack:
        starts = [stack.enter_context(background.command(*options)) for _ in range(6)]
        told = [start.communicate(timeout=TIMEOUT)[1] for start in starts]
    assert sorted(start.returncode for start in starts) == [0, 1, 1, 1, 1, 1]
    assert sorted("running already" in words for words in told) == [False] + [True] * 5
    assert background.processes() == [background.pid]


def test_killed_daemon_is_followed_by_another(background: Background) -> None:
    background.serve()
    killed = background.pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not background.processes(), "its end")
    assert background.pid == killed  # it had no time to remove it
    assert background.act("status")[0] == 1
    background.serve()
    assert background.pid != killed


# calcd -s


def test_status_tells_the_pid(background: Background) -> None:
    background.serve()
    said = f"calcd: running, pid {background.pid}, {background.pidfile}\n"
    assert background.act("status") == (0, said, "")


def test_reload_puts_a_new_setting_in_force(background: Background) -> None:
    config = background.directory / "calcd.conf"
    config.write_text("[calcd]\nprecision = 34\n")
    background.serve("-c", config)
    assert background.ask(b"DIV 1 3\n") == b"0." + b"3" * 34 + b"\n"
    config.write_text("[calcd]\nprecision = 5\n")
    assert background.act("reload") == (0, "", "")
    wait_until(lambda: "precision=5" in background.log, "the reload")
    assert background.ask(b"DIV 1 3\n") == b"0.33333\n"


def test_stop_returns_when_the_daemon_has_ended(background: Background) -> None:
    background.serve()
    with background.connect():  # for which the daemon takes its time
        assert background.act("stop") == (0, "", "")
    assert background.processes() == []
    assert background.act("status")[0] == 1


@pytest.mark.parametrize("action", actions.ACTIONS)
def test_nothing_runs(action: str, background: Background) -> None:
    status, out, err = background.act(action)
    assert (status, out) == (1, "")
    assert err == f"calcd: not running: no process holds {background.pidfile}\n"


SERVICE = Unit("calcd.service", "active", "running", 213, "connections open: 0", (), ())
SOCKET = Unit("calcd.socket", "active", "running", 0, "", (), ())


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("stop", "systemctl stop"),
        ("reload", "systemctl reload"),
        ("reopen", "systemctl kill --kill-whom=main --signal=USR1"),
    ],
)
def test_who_asks_for_a_service_of_systemd_is_told_the_command(
    action: str, command: str, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert actions.act(action, str(path), 5, lambda: [SERVICE, SOCKET]) == 1
    not_running = f"calcd: not running: no process holds {path}\n"
    assert capfd.readouterr() == (
        "",
        f"{not_running}calcd: systemd runs calcd: use {command} calcd.service\n",
    )
    assert actions.act(action, str(path), 5, lambda: [SOCKET]) == 1
    assert capfd.readouterr() == ("", not_running)


def test_status_knows_what_systemd_runs(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert actions.act("status", str(path), 5, lambda: [SERVICE, SOCKET]) == 0
    told = (
        "calcd: calcd.service: active (running), pid 213: connections open: 0\n"
        "calcd: calcd.socket: active (running)\n"
    )
    assert capfd.readouterr() == (told, "")
    assert actions.act("status", str(path), 5, lambda: [SOCKET]) == 1
    assert capfd.readouterr() == (
        "calcd: calcd.socket: active (running)\n",
        f"calcd: not running: no process holds {path}\n",
    )


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("printf 'Id=calcd.service\\nLoadState=loaded\\nMainPID=7\\n'", ["calcd.service"]),
        ("printf 'Id=calcd.service\\nLoadState=not-found\\n'", []),
        ("echo 'Failed to connect to bus' >&2; exit 1", []),
        ("exec sleep 1000", []),
        (None, []),
    ],
    ids=["runs", "not installed", "no bus", "hangs", "no systemctl"],
)
def test_systemd_is_asked_where_it_runs(
    script: str | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    path = os.environ["PATH"] if script else ""
    monkeypatch.setenv("PATH", f"{tmp_path}:{path}")
    monkeypatch.setattr(units, "_TIMEOUT", 0.3 if script and "sleep" in script else TIMEOUT)
    monkeypatch.setattr(units, "_BOOTED", str(tmp_path / "none"))
    assert units.loaded_units() == []
    monkeypatch.setattr(units, "_BOOTED", str(tmp_path))
    assert [unit.name for unit in units.loaded_units()] == names


@pytest.mark.parametrize("action", ["stop", "reload"])
def test_pid_of_another_is_not_signalled(
    action: str, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "input()"]  # ended by either signal
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as another:
        path.write_text(f"{another.pid}\n")
        assert actions.act(action, str(path), 5) == 1
        another.communicate("a line\n", TIMEOUT)
    assert another.returncode == 0
    assert "not running" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("action", "sent"),
    [("status", []), ("reload", ["SIGHUP"]), ("reopen", ["SIGUSR1"]), ("stop", ["SIGTERM"])],
)
def test_holder_is_signalled_whatever_pid_its_user_writes(
    action: str,
    sent: list[str],
    path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actions, "_STOP_MARGIN", 0.05)  # the holder does not end by it
    monkeypatch.setattr(actions, "_ANSWER_TIMEOUT", 0.05)  # nor does it answer
    with other() as victim, forger(path, victim.pid) as user:
        assert actions.act(action, str(path), 0) == (0 if action == "status" else 1)
        assert (victim.signals(), user.signals()) == ([], sent)
    told = f"calcd: {path} says {victim.pid}, but pid {user.pid} holds it: "
    assert told + f"{action} is for pid {user.pid}\n" in capfd.readouterr().err


@root_only
@pytest.mark.parametrize("action", actions.ACTIONS)
def test_pidfile_that_its_user_made_is_not_believed_by_root(
    action: str, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = Path(tempfile.mkdtemp(prefix="calcd-test-"))  # in tmp_path only root may go
    try:
        os.chown(directory, USER.pw_uid, USER.pw_gid)
        path = directory / "calcd.pid"
        with other() as victim, forger(path, victim.pid, "before") as user:
            assert actions.act(action, str(path), 0) == 1
            assert (victim.signals(), user.signals()) == ([], [])
        assert f"it belongs to uid {USER.pw_uid}" in capfd.readouterr().err
    finally:
        shutil.rmtree(directory)


@contextmanager
def with_pid(wanted: int) -> Iterator[Other]:
    """Start a process with this pid, which is free; skip the test if that fails."""
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            last_pid.write_text(str(wanted - 1))
        except OSError as error:
            pytest.skip(f"no pid can be chosen: {error}")
        with other() as process:
            if process.pid == wanted:
                yield process
                return
    pytest.skip("others were always faster to get the pid")


@pytest.mark.skipif(platform.machine() not in SYS_CLONE, reason="clone(2) has another number")
@pytest.mark.parametrize("action", actions.ACTIONS)
def test_process_with_the_reused_pid_of_a_lock_owner_is_not_signalled(
    action: str, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with other(SHARER, path, SYS_CLONE[platform.machine()]):
        gone = find_holder(str(path))
        assert gone == int(path.read_text())
        assert actions.act(action, str(path), 0) == 1
        assert capfd.readouterr().err == f"calcd: pid {gone} has just ended\n"
        with with_pid(gone) as victim:
            assert actions.act(action, str(path), 0) == 1
            assert victim.signals() == []
    told = f"calcd: pid {gone} took the lock of {path}, but does not hold it now\n"
    assert capfd.readouterr().err == told


def test_daemon_that_starts_is_waited_for(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with other(DAEMON, path) as daemon:
        timer = threading.Timer(0.1, daemon.resume)
        timer.start()
        assert actions.act("status", str(path), 5) == 0
        timer.join()
    assert f"pid {daemon.pid}" in capfd.readouterr().out


def test_lock_without_a_record_lock_is_reported(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_ATTEMPTS", 2)
    with held(path):
        assert actions.act("stop", str(path), 5) == 1
    assert "no process has the daemon's record lock" in capfd.readouterr().err


def test_stop_that_takes_too_long_is_reported(
    background: Background, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_STOP_MARGIN", 0.05)
    background.serve()
    os.kill(background.pid, signal.SIGSTOP)
    assert actions.act("stop", str(background.pidfile), 0) == 1
    assert f"still runs: kill -9 {background.pid}" in capfd.readouterr().err


# The process has ended between the look at the pidfile and the signal.
GONE = """
import signal
def gone(*_):
    raise ProcessLookupError(3, "No such process")
signal.pidfd_send_signal = gone
"""


@pytest.mark.parametrize("action", ["reload", "reopen", "stop"])
def test_an_action_for_a_process_that_has_just_gone_fails(
    action: str, background: Background
) -> None:
    background.serve()
    with background.command("-s", action, code=GONE) as acting:
        output, errors = acting.communicate(timeout=TIMEOUT)
    assert (acting.returncode, output) == (1, "")
    assert errors == f"calcd: pid {background.pid} has just ended\n"
    assert background.act("stop") == (0, "", "")


# Settings that are wrong must not keep an operator from stopping the daemon


@pytest.fixture
def wrong(background: Background) -> Path:
    """A file of settings, one of which is wrong, that the daemon was started with before."""
    config = background.directory / "calcd.conf"
    config.write_text(f"[calcd]\npidfile = {background.pidfile}\n")
    background.serve("-c", config)
    with config.open("a") as file:
        file.write("max_line = long\n")
    return config


def test_wrong_settings_do_not_hide_the_pidfile(wrong: Path, background: Background) -> None:
    for action in ("status", "stop"):
        done = run_with_settings_alone(background, action, wrong)
        assert done.returncode == 0
        assert done.stderr.startswith(f"calcd: {wrong}:3: max_line: 'long'")
    assert background.processes() == []


def run_with_settings_alone(
    background: Background, action: str, config: Path
) -> subprocess.CompletedProcess[str]:
    """Run calcd -s without the --pidfile that a ``Background`` gives."""
    return background.run("-s", action, "-c", config, code="import sys; del sys.argv[1:3]")


def test_wrong_settings_are_not_reloaded(wrong: Path, background: Background) -> None:
    done = run_with_settings_alone(background, "reload", wrong)
    assert done.returncode == 2
    assert done.stderr.startswith(f"calcd: {wrong}:3: max_line: 'long'")
    assert "reload" not in background.log


def test_pidfile_that_cannot_be_known_is_not_guessed(wrong: Path, background: Background) -> None:
    wrong.unlink()
    assert run_with_settings_alone(background, "stop", wrong).returncode == 2
    assert background.processes() == [background.pid]
    # With a --pidfile it is known.
    assert background.run("-s", "stop", "-c", wrong).returncode == 0
    assert background.processes() == []


@pytest.mark.parametrize("line", ["max_line = long", "max_lin = 5", "max_line 5"])
def test_wrong_settings_do_not_hide_what_systemd_runs(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "calcd.conf"
    config.write_text(f"[calcd]\n{line}\n")
    monkeypatch.setattr(actions, "BACKGROUND_PIDFILE", str(tmp_path / "calcd.pid"))
    monkeypatch.setattr(actions, "loaded_units", lambda: [SERVICE])
    assert actions.run("status", str(config), {}) == 0
    output, errors = capfd.readouterr()
    assert output.startswith("calcd: calcd.service: active (running), pid 213")
    assert errors.startswith(f"calcd: {config}:2: ")
    assert "not running" not in errors


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("max_line = long", ""),
        ("pidfile = /run/other.pid", "/run/other.pid"),
        ("pidfiel = /run/other.pid", None),
        ("pidfile /run/other.pid", None),
    ],
)
def test_pidfile_is_known_where_no_line_can_be_meant_for_it(
    line: str, known: str | None, tmp_path: Path
) -> None:
    config = tmp_path / "calcd.conf"
    config.write_text(f"[calcd]\n{line}\n")
    assert actions.known_pidfile(str(config), {}) == known
    assert actions.known_pidfile(str(config), {"pidfile": "/run/third.pid"}) == "/run/third.pid"
