"""The daemon: settings, sockets, detaching, log, threads, signals, shutdown, in this order."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import calcd
from calcd.config.errors import ConfigError, SettingsError
from calcd.config.settings import (
    BACKGROUND_PIDFILE,
    METRICS_PACKAGE,
    MISSING_PACKAGE,
    Settings,
    is_installed,
    need_restart,
    read_settings,
)
from calcd.daemon import actions
from calcd.daemon.cli import CommandLine, parse
from calcd.daemon.counts import DaemonCounts
from calcd.daemon.detach import StartupPipe, detach, find_account, fork_and_wait
from calcd.daemon.log import SYSLOG, close_log, flush_log, open_log, print_error, syslog_answers
from calcd.daemon.logsinks import NoReaderError
from calcd.daemon.memory import MemoryTrimmer, limit_arenas
from calcd.daemon.pidfile import Pidfile
from calcd.daemon.ratelimit import RATE_LIMIT
from calcd.daemon.systemd import Notifier, Watchdog
from calcd.net.limits import raise_descriptor_limit
from calcd.net.listeners import Listener, inherited, listen, warn_if_public
from calcd.net.server import Server
from calcd.net.workers import warn_without_workers

if TYPE_CHECKING:
    from calcd.net.credentials import Credentials

log = logging.getLogger("calcd")

DONE, COULD_NOT_RUN, WRONG_SETTINGS = 0, 1, 2
_NO_SYSLOG = f"no syslog at {SYSLOG}: log lines are lost; --log-to FILE keeps them"
_SWITCH_INTERVAL = 0.00002  # of the GIL, in seconds
_FEW_CONNECTIONS = 50
_SWITCH_INTERVAL_GROWTH = 0.0001  # for each connection more than a few
_POLL_INTERVAL = 0.5  # seconds between rounds of the serving loop without clients


def main(arguments: list[str] | None = None) -> int:
    """Run calcd with a command line, by default the process's; return the exit status."""
    _open_standard_streams()
    command_line = parse(arguments)
    try:
        if command_line.action:
            return _act(command_line, command_line.action)
        settings = read_settings(command_line.file, command_line.options, command_line.background)
        if not command_line.check:
            return Daemon(command_line, settings).run()
        if errors := actions.configuration_errors(settings, command_line.background):
            raise SettingsError(errors)
        for warning in actions.configuration_warnings(settings):
            print_error(f"warning: {warning}")
        print("calcd: the settings are right")
        return DONE
    except SettingsError as error:
        _print_errors(error)
        return WRONG_SETTINGS
    except KeyboardInterrupt:  # during -s, -t, or a start that has taken nothing yet
        return COULD_NOT_RUN


def switch_interval(connections: int) -> float:
    """Return the GIL's switch interval, in seconds, for a number of open connections.

    It is short, so that a thread that computes does not delay the serving loop. It grows, because
    each thread that waits for the GIL wakes once in each interval: thousands of them would take
    all of the processor's time.
    """
    return _SWITCH_INTERVAL + _SWITCH_INTERVAL_GROWTH * max(0, connections - _FEW_CONNECTIONS)


def _open_standard_streams() -> None:
    """Open streams that the shell closed (``<&-``): else a socket would get such a descriptor."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "r+", closefd=False))


def _act(command_line: CommandLine, action: str) -> int:
    try:
        settings = read_settings(command_line.file, command_line.options)
    except SettingsError as error:
        # A wrong setting must not keep an operator from stopping the daemon.
        pidfile = actions.known_pidfile(command_line.file, command_line.options)
        if action == "reload" or pidfile is None:
            raise
        _print_errors(error)
        settings = Settings(pidfile=pidfile)
    return actions.act(action, settings.pidfile or BACKGROUND_PIDFILE, settings.drain_timeout)


def _print_errors(error: SettingsError) -> None:
    for each in error.errors:
        print_error(str(each))


class Daemon:
    """A daemon that starts, serves until it is told to stop, and shuts down."""

    def __init__(self, command_line: CommandLine, settings: Settings) -> None:
        self._command_line = command_line
        self._settings = settings
        self._startup_pipe: StartupPipe | None = None  # with -d
        self._signals = _signals(command_line.background)
        self._loop_died = False
        self._credentials: Credentials | None = None  # of TLS endpoints, if there are any
        self._counts = DaemonCounts()
        self._metrics: list[Listener] = []  # where metrics are served

    def run(self) -> int:
        """Run to the end; return the exit status."""
        limit_arenas()  # before the first thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel reaps workers itself
        try:
            with ExitStack() as at_end:
                listeners = self._start(at_end)
                notifier = at_end.enter_context(closing(Notifier()))
                server = self._serve(listeners, notifier, at_end)
                received = self._reload_until_told_to_stop(server, listeners, notifier)
                self._shut_down(server, notifier, received)
            return COULD_NOT_RUN if self._loop_died else DONE
        except ConfigError as error:
            error.locate(self._settings.sources)
            failure = str(error)
        except Exception as error:
            log.critical("ended by a bug", exc_info=True)
            failure = f"ended by a bug, {error!r}: its log may say more"
        finally:
            close_log()
        # By now everything is released.
        if self._startup_pipe:
            self._startup_pipe.fail(failure)
        else:
            print_error(failure)
        return COULD_NOT_RUN

    def _start(self, at_end: ExitStack) -> list[Listener]:
        """Take pidfile and sockets, detach with -d, and open the log."""
        settings, background = self._settings, self._command_line.background
        notes: list[str] = []
        handed_over = inherited()  # before any fork: LISTEN_PID is this process
        listeners = [each for each in handed_over if not each.endpoint.http]
        self._metrics = [each for each in handed_over if each.endpoint.http]
        if self._metrics and not is_installed(METRICS_PACKAGE):
            raise ConfigError(*MISSING_PACKAGE)
        if background:
            self._startup_pipe = fork_and_wait()
        # Signals are blocked from here on, so that none ends the process before its cleanup.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        account = find_account(settings.user, settings.group) if background else None
        pidfile = Pidfile(settings.pidfile, account) if settings.pidfile else None
        if pidfile:
            at_end.callback(pidfile.remove)
        if not listeners:
            listeners, notes = listen(settings.listen, settings.reuse_port)
        if not self._metrics:  # each process has its own: no port is shared
            self._metrics, more_notes = listen(settings.metrics)
            notes += more_notes
        for listener in (*listeners, *self._metrics):
            at_end.callback(listener.close)
        self._credentials = _load_credentials(listeners, settings)
        if self._startup_pipe:
            keep = [
                self._startup_pipe.fd,
                *(each.socket.fileno() for each in (*listeners, *self._metrics)),
            ]
            detach([*keep, pidfile.fd] if pidfile else keep, account)
        elif settings.user or settings.group:
            notes.append("user and group have no effect without -d")
        if pidfile:
            pidfile.write()
        _open_log(settings, account.name if account else "")
        log.info("calcd %s starts, pid %d", calcd.__version__, os.getpid())
        for note in notes:
            log.warning("%s", note)
        warn_if_public([*listeners, *self._metrics], settings)
        warn_without_workers(settings)
        if self._credentials:
            self._counts.certificate_expiry = self._credentials.expiry
            self._credentials.report()
        return listeners

    def _serve(self, listeners: list[Listener], notifier: Notifier, at_end: ExitStack) -> Server:
        """Start the serving loop; tell systemd and the process that waits for the start."""
        watchdog, trimmer = Watchdog(notifier), MemoryTrimmer()

        def on_tick(connections: int) -> None:
            sys.setswitchinterval(switch_interval(connections))
            watchdog.on_tick(connections, server.stats.count_requests)
            RATE_LIMIT.report()
            trimmer.on_tick(connections)
            if credentials := self._credentials:
                credentials.on_tick()

        tls = self._credentials.context if self._credentials else None
        server = Server(listeners, raise_descriptor_limit(self._settings), on_tick, tls)
        server.stats.include(self._counts.read)
        if self._metrics:
            from calcd.daemon.metricsserver import MetricsServer  # it imports much

            at_end.enter_context(closing(MetricsServer(self._metrics, server.stats)))
        log.info("settings in force: %s", server.settings)
        poll = min(_POLL_INTERVAL, watchdog.interval)
        # A daemon thread: after a bug in this one, it must not serve on alone.
        threading.Thread(
            target=self._loop, args=(server, poll), name="serving", daemon=True
        ).start()
        for listener in (*listeners, *self._metrics):
            purpose = " for metrics" if listener.endpoint.http else ""
            origin = ", from systemd in place of the setting" if listener.inherited else ""
            log.info("listening on %s%s%s", listener.endpoint, purpose, origin)
        flush_log()  # scripts look for these lines once the daemon is ready
        notifier.send("READY=1")
        if self._startup_pipe:
            # In the foreground, the log itself reports this on stderr.
            lost = self._settings.log_to == "syslog" and not syslog_answers()
            self._startup_pipe.succeed(_NO_SYSLOG if lost else "")
        return server

    def _loop(self, server: Server, poll: float) -> None:
        try:
            server.serve_forever(poll)
        except Exception:
            log.critical("the serving loop ended by a bug", exc_info=True)
            self._loop_died = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _reload_until_told_to_stop(
        self, server: Server, listeners: list[Listener], notifier: Notifier
    ) -> signal.Signals:
        """Reload at each SIGHUP; return the first other signal."""
        while (received := signal.sigwait(self._signals)) == signal.SIGHUP:
            log.info("reloading: SIGHUP")
            notifier.reloading()
            self._reload(server, listeners)
            flush_log()
            notifier.send("READY=1")
        return signal.Signals(received)

    def _reload(self, server: Server, listeners: list[Listener]) -> None:
        """Read the settings again, and reopen the log. If one is wrong, keep the old settings."""
        old, line = server.settings, self._command_line
        new = old
        credentials = None  # of TLS endpoints that were loaded anew
        errors: Sequence[ConfigError] = ()
        try:
            new = read_settings(line.file, line.options, line.background)
            credentials = _load_credentials(listeners, new)
            _open_log(new)
        except SettingsError as error:
            errors = error.errors
        except ConfigError as error:
            error.locate(new.sources)
            errors = [error]
        self._counts.reloaded(is_success=not errors)
        for each in errors:
            log.error("reload: %s", each)
        if errors:
            log.error("reload: the settings stay as they were")
            new, credentials = old, None
            try:
                _open_log(old)
            except ConfigError as error:  # the log stays where it is, maybe a deleted file
                print_error(str(error))
        if credentials:
            server.tls = credentials.context
            credentials.report(self._credentials)
            self._credentials = credentials
            self._counts.certificate_expiry = credentials.expiry
        fixed = need_restart(old, new)
        if fixed:
            log.warning("reload: a restart is needed to change %s", ", ".join(fixed))
        kept = {name: getattr(old, name) for name in fixed}
        server.settings = raise_descriptor_limit(replace(new, **kept))
        log.info("settings in force: %s", server.settings)
        warn_if_public(listeners, server.settings, old)
        if server.settings.workers != old.workers:
            warn_without_workers(server.settings)

    def _shut_down(self, server: Server, notifier: Notifier, received: signal.Signals) -> None:
        # Further signals are ignored: the drain has a time limit, and some senders repeat them.
        seconds = server.settings.drain_timeout
        log.info("stopping: %s, done in %g s at most", received.name, seconds)
        notifier.send("STOPPING=1")
        cut, answered = server.drain(seconds)
        server.server_close()
        RATE_LIMIT.report(now=True)
        level = logging.WARNING if cut else logging.INFO
        message = "stopped: %d connections cut, %d requests answered during the drain"
        log.log(level, message, cut, answered)


def _open_log(settings: Settings, user: str = "") -> None:
    try:
        open_log(settings.log_to, settings.log_level)
    except OSError as error:
        as_user = f" as {user}" if user else ""
        start_reader = "start its reader first, or " if isinstance(error, NoReaderError) else ""
        raise ConfigError(
            f"cannot write the log {settings.log_to}{as_user}: {error.strerror}",
            f"{start_reader}name another with --log-to",
            setting="log_to",
        ) from None


def _load_credentials(listeners: list[Listener], settings: Settings) -> "Credentials | None":
    """Load certificate and key if there is a TLS endpoint; else do not even import ssl."""
    if not any(listener.endpoint.tls for listener in listeners):
        return None
    from calcd.net.credentials import load_credentials

    return load_credentials(settings)


def _signals(background: bool) -> set[signal.Signals]:
    """Return the signals to wait for.

    In the foreground, a signal that was ignored at the start stays ignored: a shell starts a
    background job with SIGINT ignored, and nohup ignores SIGHUP. With -d the daemon has a session
    of its own, and gets only signals that are sent to it.
    """
    may_be_ignored = set() if background else {signal.SIGINT, signal.SIGHUP}
    ignored = {each for each in may_be_ignored if signal.getsignal(each) == signal.SIG_IGN}
    return {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} - ignored
