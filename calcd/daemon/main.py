"""The order of things: settings, sockets, detach, log, threads, signals, stop."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import calcd
from calcd.config.settings import (
    BACKGROUND_PIDFILE,
    Settings,
    SettingsError,
    need_restart,
    read_settings,
    where_set,
)
from calcd.core.errors import StartError
from calcd.daemon import actions as control
from calcd.daemon import check, exposure
from calcd.daemon.cli import CommandLine, parse
from calcd.daemon.detach import Shell, detach, leave_shell
from calcd.daemon.log import (
    SYSLOG,
    complain,
    flush_log,
    log_closed_at_end,
    open_log,
    syslog_answers,
)
from calcd.daemon.logsinks import NoReaderError
from calcd.daemon.memory import Trim, limit_arenas
from calcd.daemon.owner import owner_of
from calcd.daemon.pidfile import Pidfile
from calcd.daemon.ratelimit import LOG_RATE
from calcd.daemon.systemd import Beat, Notifier
from calcd.net.limits import fitting
from calcd.net.listeners import Listener, inherited, listen
from calcd.net.server import Server

if TYPE_CHECKING:
    from ssl import SSLContext

log = logging.getLogger("calcd")

DONE, COULD_NOT_RUN, WRONG_SETTINGS = 0, 1, 2
_NO_SYSLOG = f"no syslog at {SYSLOG}: log lines are lost; --log-to FILE keeps them"
# GIL switch interval, in seconds: a thread that computes must not delay the serving loop.
_SWITCH_INTERVAL = 0.0001
_POLL = 0.5  # seconds between rounds of the serving loop when no client comes


def main(arguments: list[str] | None = None) -> int:
    """Run calcd with a command line, by default the process's; return the exit status."""
    _open_standard_streams()
    command_line = parse(arguments)
    try:
        if command_line.action:
            return _act(command_line, command_line.action)
        settings = read_settings(command_line.file, command_line.options, command_line.background)
        if command_line.check:
            return _check(command_line, settings)
        return Daemon(command_line, settings).run()
    except SettingsError as error:
        return _complain(error.problems, WRONG_SETTINGS)
    except KeyboardInterrupt:  # of -s, of -t, or of a start before it has begun
        return COULD_NOT_RUN


def _open_standard_streams() -> None:
    """Open those that the shell closed (``<&-``): else a socket would get the number of one."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "r+", closefd=False))


def _act(command_line: CommandLine, action: str) -> int:
    """Act on the running daemon."""
    try:
        settings = read_settings(command_line.file, command_line.options)
    except SettingsError as error:
        # What is wrong elsewhere must not keep a person from stopping the daemon.
        pidfile = control.known_pidfile(command_line.file, command_line.options)
        if action == "reload" or pidfile is None:
            raise
        _complain(error.problems)
        settings = Settings(pidfile=pidfile)
    return control.act(action, settings.pidfile or BACKGROUND_PIDFILE, settings.drain_timeout)


def _check(command_line: CommandLine, settings: Settings) -> int:
    where = where_set(command_line.file, command_line.options)
    if problems := list(check.problems(settings, where, command_line.background)):
        return _complain(problems, WRONG_SETTINGS)
    print("calcd: the settings are right")
    return DONE


def _complain(problems: Iterable[str], status: int = COULD_NOT_RUN) -> int:
    for problem in problems:
        complain(problem)
    return status


class Daemon:
    """A daemon that starts, serves until it is told to stop, and stops."""

    def __init__(self, command_line: CommandLine, settings: Settings) -> None:
        self._command_line = command_line
        self._settings = settings
        self._shell: Shell | None = None  # waits for how the start goes, with -d
        self._signals = _signals(command_line.background)
        self._loop_died = False
        self._tls: SSLContext | None = None  # what connections of TLS endpoints begin with

    def run(self) -> int:
        """Run to the end; return the exit status."""
        limit_arenas()  # before the first thread
        try:
            with log_closed_at_end():
                return self._run()
        except StartError as error:
            self._say_why(str(error))
        except Exception as error:
            self._say_why(f"ended by a bug, {error!r}: its log may say more")
        return COULD_NOT_RUN

    def _run(self) -> int:
        try:
            with ExitStack() as at_end:
                return self._serve(self._start(at_end), at_end)
        except StartError:
            raise
        except Exception:
            log.critical("ended by a bug", exc_info=True)
            raise

    def _say_why(self, words: str) -> None:
        """Say why it could not run, to whoever started it; by now everything is given back."""
        if self._shell:
            self._shell.fail(words)
        else:
            _complain([words])

    def _start(self, at_end: ExitStack) -> list[Listener]:
        """Take what the daemon needs, detach if asked to, and open the log."""
        settings, background = self._settings, self._command_line.background
        notes: list[str] = []
        listeners = inherited()  # before any fork: they are meant for this very pid
        if background:
            self._shell = leave_shell()
        # From here on signals wait until they are asked for: whatever is taken is given back.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        owner = owner_of(settings.user, settings.group) if background else None
        pidfile = Pidfile(settings.pidfile, owner) if settings.pidfile else None
        if pidfile:
            at_end.callback(pidfile.remove)
        if not listeners:
            listeners, notes = listen(settings.listen, settings.reuse_port)
        for listener in listeners:
            at_end.callback(listener.close)
        self._tls = _tls_context(listeners, settings)
        if self._shell:
            keep = [self._shell.fd, *(listener.socket.fileno() for listener in listeners)]
            detach([*keep, pidfile.fd] if pidfile else keep, owner)
        elif settings.user or settings.group:
            notes.append("user and group have no effect without -d")
        if pidfile:
            pidfile.write()
        try:
            open_log(settings.log_to, settings.log_level)
        except OSError as error:
            as_whom = f" as {owner.name}" if owner else ""
            hint = "start its reader first, or " if isinstance(error, NoReaderError) else ""
            raise StartError(
                f"cannot write the log {settings.log_to}{as_whom}: {error.strerror}: "
                f"{hint}name another with --log-to"
            ) from None
        log.info("calcd %s starts, pid %d", calcd.__version__, os.getpid())
        for note in notes:
            log.warning("%s", note)
        exposure.warn(listeners, settings)
        return listeners

    def _serve(self, listeners: list[Listener], at_end: ExitStack) -> int:
        """Serve until a signal says stop; return the exit status."""
        notifier = Notifier()
        at_end.callback(notifier.close)
        beat, trim = Beat(notifier), Trim()

        sys.setswitchinterval(_SWITCH_INTERVAL)

        def on_tick(connections: int) -> None:
            beat(connections)
            LOG_RATE.tell()
            trim(connections)

        server = Server(listeners, fitting(self._settings), on_tick, self._tls)
        log.info("settings in force: %s", server.settings)
        poll = min(_POLL, beat.seconds)
        # A daemon thread: nothing that goes wrong here may leave it behind, serving alone.
        threading.Thread(
            target=self._loop, args=(server, poll), name="serving", daemon=True
        ).start()
        for listener in listeners:
            origin = ", from systemd in place of the setting" if listener.inherited else ""
            log.info("listening on %s%s", listener.endpoint, origin)
        flush_log()  # scripts look for the lines above when the daemon has said that it is ready
        notifier.send("READY=1")
        if self._shell:
            # In the foreground the log itself says so, on stderr.
            lost = self._settings.log_to == "syslog" and not syslog_answers()
            self._shell.succeed(_NO_SYSLOG if lost else "")
        while (received := signal.sigwait(self._signals)) == signal.SIGHUP:
            log.info("reloading: SIGHUP")
            notifier.reloading()
            self._reload(server, listeners)
            flush_log()
            notifier.send("READY=1")
        # More signals change nothing: a stop has its bound, and some senders repeat themselves.
        seconds = server.settings.drain_timeout
        log.info("stopping: %s, done in %g s at most", signal.Signals(received).name, seconds)
        notifier.send("STOPPING=1")
        cut = server.drain(seconds)
        server.server_close()
        LOG_RATE.tell(at_once=True)
        log.log(logging.WARNING if cut else logging.INFO, "stopped: %d connections cut", cut)
        return COULD_NOT_RUN if self._loop_died else DONE

    def _loop(self, server: Server, poll: float) -> None:
        try:
            server.serve_forever(poll)
        except Exception:
            log.critical("the serving loop ended by a bug", exc_info=True)
            self._loop_died = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _reload(self, server: Server, listeners: list[Listener]) -> None:
        """Read the settings again; where any is wrong, all stay. Open the log again anyway."""
        old = server.settings
        line = self._command_line
        try:
            new = read_settings(line.file, line.options, line.background)
            tls = _tls_context(listeners, new)
            open_log(new.log_to, new.log_level)
            server.tls = tls
        except (SettingsError, StartError, OSError) as error:
            what = "" if isinstance(error, StartError) else "cannot write the log: "
            for problem in getattr(error, "problems", [f"{what}{error}"]):
                log.error("reload: %s", problem)
            log.error("reload: the settings stay as they were")
            new = old
            try:
                open_log(old.log_to, old.log_level)
            except OSError as error:  # it stays where it is, which may be no place any more
                complain(f"cannot write the log {old.log_to}: {error.strerror}")
        fixed = need_restart(old, new)
        if fixed:
            log.warning("reload: a restart is needed to change %s", ", ".join(fixed))
        kept = {name: getattr(old, name) for name in fixed}
        server.settings = fitting(replace(new, **kept))
        log.info("settings in force: %s", server.settings)
        exposure.warn(listeners, server.settings, old)


def _tls_context(listeners: list[Listener], settings: Settings) -> "SSLContext | None":
    """Load certificate and key where there is a TLS endpoint, else not even what loads them."""
    if not any(listener.tls for listener in listeners):
        return None
    from calcd.net.certificates import context

    return context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _signals(background: bool) -> set[signal.Signals]:
    """Give the signals to wait for.

    In the foreground one that was ignored from the start stays so: a shell starts a background
    job with SIGINT ignored, and nohup a command with SIGHUP. A daemon with a session of its own
    gets only what is meant for it.
    """
    may_be_ignored = set() if background else {signal.SIGINT, signal.SIGHUP}
    ignored = {each for each in may_be_ignored if signal.getsignal(each) == signal.SIG_IGN}
    return {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - ignored
