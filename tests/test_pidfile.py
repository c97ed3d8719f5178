"""The pidfile, and calcd -s: who holds it, who may take it, and who is never signalled."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from background_helpers import Background
from helpers import PATIENCE, wait_until

from calcd import control
from calcd.owner import Owner
from calcd.pidfile import Pidfile, PidfileError, holder


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


# The file


def test_it_holds_the_pid_until_it_is_removed(path: Path) -> None:
    with held(path) as pidfile:
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_holder_is_known_by_the_lock(path: Path) -> None:
    assert holder(str(path)) is None
    with held(path) as pidfile:
        assert holder(str(path)) == 0  # it has the lock, and no pid in it yet
        pidfile.write()
        assert holder(str(path)) == os.getpid()
    path.write_text("1\n")
    assert holder(str(path)) is None


LEFT_OVERS = {
    "dead": "4194305\n",  # more than a pid can be
    "init's": "1\n",
    "the-test's": f"{os.getpid()}\n",
    "empty": "",
    "garbage": "\0not a pid\n" * 100,
}


@pytest.mark.parametrize("text", LEFT_OVERS.values(), ids=LEFT_OVERS)
def test_what_another_left_in_it_does_not_matter(text: str, path: Path) -> None:
    path.write_text(text)
    with held(path) as pidfile:
        assert path.read_text() == ""  # nor may anybody take it for the new holder's
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"


def test_second_holder_is_told_of_the_first(path: Path) -> None:
    with held(path) as first:
        with pytest.raises(PidfileError, match="starting just now"):
            Pidfile(str(path))
        first.write()
        with pytest.raises(PidfileError, match=rf"pid {os.getpid()}\): stop it with calcd -s stop"):
            Pidfile(str(path))


def test_who_only_looks_does_not_keep_a_daemon_out(path: Path) -> None:
    path.touch()
    taken = threading.Event()

    def take() -> None:
        with held(path):
            taken.set()

    with path.open() as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)  # as holder() does for a moment
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)
    thread.join(PATIENCE)
    assert taken.is_set()


def test_file_that_goes_just_before_it_is_locked_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def lock_too_late(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()  # as the daemon does that held it until now
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lock_too_late)
    with held(path):
        assert holder(str(path)) == 0


def test_missing_directory_is_made_and_given_to_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "run" / "calcd.pid"
    owner = Owner("nobody", 65534, 65534) if os.getuid() == 0 else None
    pidfile = Pidfile(str(path), owner)
    assert path.parent.stat().st_uid == (owner.uid if owner else os.getuid())
    pidfile.remove()


def test_directory_of_another_stays_as_it_is(tmp_path: Path) -> None:
    Pidfile(str(tmp_path / "calcd.pid"), Owner("nobody", 65534, 65534)).remove()
    assert tmp_path.stat().st_uid == os.getuid()


def test_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(PidfileError, match="cannot write the pidfile"):
        Pidfile(str(path))
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_left_alone(make: Callable[[Path], None], path: Path) -> None:
    make(path)
    with pytest.raises(PidfileError, match="name another with --pidfile"):
        Pidfile(str(path))
    assert not stat.S_ISREG(path.lstat().st_mode)


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
    assert holder(str(path)) is None


# Daemons that want it


def test_daemon_holds_it_until_it_has_stopped(background: Background) -> None:
    background.serve()
    assert background.processes() == [background.pid] == [holder(str(background.pidfile))]
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
        told = [start.communicate(timeout=PATIENCE)[1] for start in starts]
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


@pytest.mark.parametrize("action", control.ACTIONS)
def test_nothing_runs(action: str, background: Background) -> None:
    status, out, err = background.act(action)
    assert (status, out) == (1, "")
    assert err == f"calcd: not running: no process holds {background.pidfile}\n"


@pytest.mark.parametrize("action", ["stop", "reload"])
def test_pid_of_another_is_not_signalled(
    action: str, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "input()"]  # ended by either signal
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as another:
        path.write_text(f"{another.pid}\n")
        assert control.act(action, str(path), 5) == 1
        another.communicate("a line\n", PATIENCE)
    assert another.returncode == 0
    assert "not running" in capfd.readouterr().err


def test_pid_that_is_not_written_yet_is_waited_for(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with held(path) as pidfile:
        timer = threading.Timer(0.1, pidfile.write)
        timer.start()
        assert control.act("status", str(path), 5) == 0
        timer.join()
    assert f"pid {os.getpid()}" in capfd.readouterr().out


def test_pidfile_that_was_emptied_is_told(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_LOOKS", 2)
    with held(path):
        assert control.act("stop", str(path), 5) == 1
    assert "there is no pid in it" in capfd.readouterr().err


def test_stop_that_takes_too_long_is_told(
    background: Background, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_STOP_MARGIN", 0.05)
    background.serve()
    os.kill(background.pid, signal.SIGSTOP)
    assert control.act("stop", str(background.pidfile), 0) == 1
    assert f"still runs: kill -9 {background.pid}" in capfd.readouterr().err


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


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("max_line = long", "/run/calcd/calcd.pid"),
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
    assert control.known_pidfile(str(config), {}) == known
    assert control.known_pidfile(str(config), {"pidfile": "/run/third.pid"}) == "/run/third.pid"
