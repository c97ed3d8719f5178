"""The daemon: settings, sockets, detaching, log, threads, signals, shutdown, in this order."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from time import monotonic
from typing import TYPE_CHECKING

import calcd
from calcd.config.errors import ConfigError, SettingsError, wrong_settings
from calcd.config.settings import Settings, missing_package, read_settings
from calcd.daemon import actions, signals
from calcd.daemon.answers import Answer, Answerer
from calcd.daemon.check import check
from calcd.daemon.cli import CommandLine, parse
from calcd.daemon.counts import DaemonCounts
from calcd.daemon.detach import Account, StartupPipe, detach, find_account, fork_and_wait
from calcd.daemon.effect import effect_warnings, in_force
from calcd.daemon.log import (
    SYSLOG,
    close_log,
    flush_log,
    print_error,
    print_errors,
    syslog_answers,
)
from calcd.daemon.memory import MemoryTrimmer, limit_arenas
from calcd.daemon.pidfile import Pidfile
from calcd.daemon.ratelimit import RATE_LIMIT
from calcd.daemon.refusal import refuse_clients
from calcd.daemon.reload import load_tls, open_settings_log, reload, reopen_log
from calcd.daemon.signals import Received
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
# Seconds after the signal that begins a stop, in which others are taken for the same: timeout(1)
# signals its child, and then the process group of both.
_SAME_STOP = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Run calcd with a command line, by default the process's; return the exit status."""
    _open_standard_streams()
    try:
        listeners = inherited()  # before any fork: LISTEN_PID is this process
    except ConfigError as error:
        print_error(str(error))
        return COULD_NOT_RUN
    try:
        command_line = parse(arguments)
    except SystemExit as ended:
        if ended.code:  # wrong usage
            refuse_clients(listeners)
        raise
    try:
        if command_line.action:
            return actions.run(command_line.action, command_line.file, command_line.options)
        if command_line.check:
            return check(command_line)
        return _run_daemon(command_line, listeners)
    except SettingsError as error:
        print_errors(error)
        return WRONG_SETTINGS
    except KeyboardInterrupt:  # during -s, -t, or a start that has taken nothing yet
        return COULD_NOT_RUN


def _run_daemon(command_line: CommandLine, listeners: list[Listener]) -> int:
    """Run the daemon, with the sockets that systemd holds, if any; return the exit status."""
    try:
        settings = read_settings(command_line.file, command_line.options, command_line.background)
    except SettingsError as error:
        print_errors(error)
        status = WRONG_SETTINGS
    else:
        status = Daemon(command_line, settings, listeners).run()
    # Those that are open were never served: the start has failed.
    refuse_clients([each for each in listeners if each.socket.fileno() >= 0])
    return status


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


class Daemon:
    """A daemon that starts, serves until it is told to stop, and shuts down.

    ``listeners`` are those for sockets from systemd; if there is none, it makes its own.
    """

    def __init__(
        self, command_line: CommandLine, settings: Settings, listeners: Sequence[Listener] = ()
    ) -> None:
        self._command_line = command_line
        self._settings = settings
        self._listeners = [each for each in listeners if not each.endpoint.http]
        self._metrics_listeners = [each for each in listeners if each.endpoint.http]
        self._startup_pipe: StartupPipe | None = None  # with -d
        self._signals = signals.signals_to_wait_for(command_line.background)
        self._signal_thread = signals.SignalThread(self._signals)  # during the drain
        self._loop_died = False
        self._credentials: Credentials | None = None  # of TLS endpoints, if there are any
        self._counts = DaemonCounts()

    def run(self) -> int:
        """Run to the end; return the exit status."""
        limit_arenas()  # before the first thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel reaps workers itself
        status = COULD_NOT_RUN
        try:
            with ExitStack() as at_end:
                self._start(at_end)
                notifier = at_end.enter_context(closing(Notifier()))
                answerer = at_end.enter_context(closing(Answerer()))
                server = self._serve(notifier, at_end)
                stop = self._handle_signals(server, notifier, answerer)
                self._shut_down(server, notifier, answerer, stop)
            return COULD_NOT_RUN if self._loop_died else DONE
        except SettingsError as error:
            failure, status = str(error), WRONG_SETTINGS
        except ConfigError as error:
            error.locate(self._settings.sources)
            failure = str(error)
        except Exception as error:
            log.critical("ended by a bug", exc_info=True)
            failure = f"ended by a bug, {error!r}: its log may say more"
        finally:
            close_log()
        # By now everything is released, but for sockets from systemd that were never served.
        if self._startup_pipe:
            self._startup_pipe.fail(failure, status)
        else:
            print_error(failure)
        return status

    def _start(self, at_end: ExitStack) -> None:
        """Take pidfile and sockets, detach with -d, and open the log."""
        settings, background = self._settings, self._command_line.background
        notes: list[str] = []
        if background:
            self._startup_pipe = fork_and_wait()
        # Signals are blocked from here on, so that none ends the process before its cleanup.
        signals.block(self._signals)
        account = self._find_account()
        pidfile = Pidfile(settings.pidfile, account) if settings.pidfile else None
        if pidfile:
            at_end.callback(pidfile.remove)
        if self._metrics_listeners and (error := missing_package()):
            raise SettingsError([error])
        if not self._listeners:
            self._listeners, notes = listen(settings.listen, settings.reuse_port)
        if not self._metrics_listeners:  # each process has its own: no port is shared
            self._metrics_listeners, more_notes = listen(settings.metrics)
            notes += more_notes
        for listener in self._all_listeners:
            if not listener.inherited:
                at_end.callback(listener.close)
        self._credentials = self._load_tls()
        if self._startup_pipe:
            descriptors = [listener.socket.fileno() for listener in self._all_listeners]
            keep = [self._startup_pipe.fd, *descriptors]
            detach([*keep, pidfile.fd] if pidfile else keep, account)
        if pidfile:
            pidfile.write()
        open_settings_log(settings, account.name if account else "")
        log.info("calcd %s starts, pid %d", calcd.__version__, os.getpid())
        for note in (*notes, *effect_warnings(settings, self._all_listeners, background)):
            log.warning("%s", note)
        warn_if_public(self._all_listeners, settings)
        warn_without_workers(settings)
        if self._credentials:
            self._counts.certificate_expiry = self._credentials.expiry
            self._credentials.report()

    @property
    def _all_listeners(self) -> list[Listener]:
        return [*self._listeners, *self._metrics_listeners]

    def _find_account(self) -> Account | None:
        """Find whom to become, with -d; raise ``SettingsError``."""
        if not self._command_line.background:
            return None
        with wrong_settings(self._settings.sources):
            return find_account(self._settings.user, self._settings.group)

    def _load_tls(self) -> "Credentials | None":
        """Load what TLS endpoints need; raise ``SettingsError``."""
        with wrong_settings(self._settings.sources):
            return load_tls(self._listeners, self._settings)

    def _serve(self, notifier: Notifier, at_end: ExitStack) -> Server:
        """Start the serving loop; tell systemd and the process that waits for the start."""
        watchdog, trimmer = Watchdog(notifier), MemoryTrimmer()

        def on_tick(connections: int) -> None:
            sys.setswitchinterval(switch_interval(connections))
            watchdog.on_tick(connections, server.stats.count_requests)
            RATE_LIMIT.report()
            trimmer.on_tick(connections)
            if credentials := self._credentials:
                credentials.on_tick()

        settings = in_force(self._settings, self._all_listeners, self._command_line.background)
        tls = self._credentials.context if self._credentials else None
        server = Server(self._listeners, raise_descriptor_limit(settings), on_tick, tls)
        server.stats.include(self._counts.read)
        if self._metrics_listeners:
            from calcd.daemon.metricsserver import MetricsServer  # it imports much

            for listener in self._metrics_listeners:  # also those from systemd, as the server does
                at_end.callback(listener.close)
            at_end.enter_context(closing(MetricsServer(self._metrics_listeners, server.stats)))
        log.info("settings in force: %s", server.settings)
        poll = min(_POLL_INTERVAL, watchdog.interval)
        self._signal_thread.start()
        # A daemon thread: after a bug in this one, it must not serve on alone.
        threading.Thread(
            target=self._loop, args=(server, poll), name="serving", daemon=True
        ).start()
        for listener in self._all_listeners:
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

    # Signals

    def _handle_signals(
        self, server: Server, notifier: Notifier, answerer: Answerer
    ) -> signal.Signals:
        """Do what signals ask for; return the first that asks for a stop."""
        while (received := signals.wait(self._signals)).signal not in signals.STOPS:
            if received.signal == signals.RELOAD:
                log.info("reloading: SIGHUP")
                notifier.reloading()
                answer = self._reload(server)
                flush_log()
                notifier.send("READY=1")
            else:
                answer = _reopen_or_show(received, server)
            answerer.send(received.sender, answer)
        return received.signal

    def _reload(self, server: Server) -> Answer:
        listeners, previous = self._all_listeners, self._credentials
        answer, self._credentials = reload(server, listeners, self._command_line, previous)
        self._counts.reloaded(answer.done)
        if self._credentials:
            self._counts.certificate_expiry = self._credentials.expiry
        return answer

    def _shut_down(
        self, server: Server, notifier: Notifier, answerer: Answerer, stop: signal.Signals
    ) -> None:
        """Drain the connections; a second signal that asks for a stop ends that at once."""
        seconds, began = server.settings.drain_timeout, monotonic()
        log.info("stopping: %s, done in %g s at most", stop.name, seconds)
        notifier.send("STOPPING=1")

        def handle(received: Received) -> None:
            answer = Answer(False, ["calcd is stopping"])
            if received.signal not in signals.STOPS:
                if received.signal != signals.RELOAD:
                    answer = _reopen_or_show(received, server)
                answerer.send(received.sender, answer)
            elif monotonic() >= began + _SAME_STOP:
                log.warning("stopping at once: a second signal, %s", received.signal.name)
                server.end_drain()

        self._signal_thread.begin(handle)
        cut, answered = server.drain(seconds)
        self._signal_thread.end()
        server.server_close()
        RATE_LIMIT.report(now=True)
        level = logging.WARNING if cut else logging.INFO
        message = "stopped: %d connections cut, %d requests answered during the drain"
        log.log(level, message, cut, answered)


def _reopen_or_show(received: Received, server: Server) -> Answer:
    """Open the log again, or log the settings in force, as a signal asks for."""
    if received.signal == signals.REOPEN:
        answer = reopen_log(server.settings)
        log.info("SIGUSR1: the log is open%s", " again" if answer.done else "")
    else:
        # At a level that is logged, whatever log_level is: this is how to ask for it.
        log.log(log.getEffectiveLevel(), "SIGUSR2: settings in force: %s", server.settings)
        answer = Answer(True)
    flush_log()
    return answer
