"""The metrics of a running daemon: what is served, to whom, and at what cost to others."""

import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import prometheus
import pytest
from certificates import STORED, stored
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    ask,
    clean_environment,
    datagrams_to,
    read_all,
    request_all,
    run_calcd,
    wait_until,
)
from prometheus_client.parser import text_string_to_metric_families

METRICS = ("--metrics", "http://127.0.0.1:0")
needs_prometheus = pytest.mark.skipif(
    not prometheus.IS_INSTALLED, reason="prometheus and promtool are not installed"
)


def get(daemon: Daemon, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    """Return status and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port_of("http"), timeout=TIMEOUT)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(daemon: Daemon) -> dict[str, float]:
    """Return the samples, by ``name`` or ``name.label``."""
    status, text = get(daemon)
    assert status == 200
    return {
        ".".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def stats(daemon: Daemon) -> dict[str, str]:
    return dict(field.split("=", 1) for field in daemon.ask(b"STATS\n").decode().split())


def wait_for(daemon: Daemon, **expected: float) -> dict[str, float]:
    """Wait until each of these counters has its number; return the scrape that has them."""
    found: dict[str, float] = {}
    names = {name.replace("__", "."): number for name, number in expected.items()}

    def come() -> bool:
        found.update(scrape(daemon))
        return all(found[f"calcd_{name}"] == number for name, number in names.items())

    wait_until(come, str(names))
    return found


@contextmanager
def slow_clients(daemon: Daemon, count: int) -> Iterator[list[socket.socket]]:
    """Connect clients to the port for metrics that do not finish what they ask."""
    with ExitStack() as at_end:
        address = ("127.0.0.1", daemon.port_of("http"))
        clients = [
            at_end.enter_context(socket.create_connection(address, TIMEOUT)) for _ in range(count)
        ]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\nX-")
        yield clients


# What is served


def test_the_counters_are_those_of_known_traffic(start_daemon: Daemons, tmp_path: Path) -> None:
    pair, path = stored("server"), tmp_path / "calcd.sock"
    endpoints = [f"{scheme}://127.0.0.1:0" for scheme in ("tcp", "tls", "udp")]
    listen = [part for url in (*endpoints, f"unix://{path}") for part in ("-l", url)]
    files = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = start_daemon(*listen, *files, *METRICS, "--max-connections", "9")

    requests = b"SOMA 2 2\nDIV 1 0\nEXP 1\n"
    replies = daemon.ask(requests)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(str(path))
        assert request_all(client, requests) == replies
    context = ssl.create_default_context(cafile=str(STORED / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        assert ask(client, b"QUIT\n") == b"BYE\n"
        assert client.recv(1) == b""
    with socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT) as client:
        assert request_all(client, b"SOMA 2 2\n").startswith(b"ERR FORBIDDEN ")
    with datagrams_to(daemon) as client:
        client.send(b"SOMA 2 2\nUPPER x\n")
        client.recv(1000)
        client.send(b"X")
        client.recv(1000)
        client.send(b"PING")
        assert client.recv(1000) == b"PONG\n"
    with daemon.connect() as client:
        ask(client, b"PING\n")
        found = wait_for(
            daemon, connections_closed_total__closed=2, connections_closed_total__quit=1
        )

    expected = {
        "connections_open": 1,
        "connections_limit": 9,
        "connections_total.tcp": 2,
        "connections_total.tls": 2,
        "connections_total.unix": 1,
        "connections_closed_total.tls-error": 1,
        "tls_handshakes_failed_total": 1,
        "requests_total": 3 + 3 + 1 + 4 + 1,
        "errors_total.DIVISION-BY-ZERO": 2,
        "errors_total.FORBIDDEN": 1,
        "errors_total.NOT-OVER-UDP": 1,
        "errors_total.UNKNOWN-OPERATION": 1,
        "errors_total.SYNTAX": 0,
        "datagrams_total": 3,
        "settings_last_reload_successful": 1,
    }
    assert {name: found[f"calcd_{name}"] for name in expected} == expected
    closed = sum(
        number for name, number in found.items() if name.startswith("calcd_connections_closed")
    )
    assert closed == 4
    plain_bytes = 2 * len(requests) + len(b"SOMA 2 2\nSOMA 2 2\nUPPER x\nXPINGPING\n")
    assert plain_bytes + 500 < found["calcd_received_bytes_total"] < plain_bytes + 3000
    assert found["calcd_sent_bytes_total"] > 2 * len(replies) + 500  # a certificate, too
    assert found["calcd_threads"] >= 4
    ends = found["calcd_tls_certificate_expiry_timestamp_seconds"]
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", str(pair.cert)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ends == ssl.cert_time_to_seconds(shown.stdout.strip().partition("=")[2])


def test_bytes_of_plain_connections_are_counted_exactly(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    sent = received = 0
    for asked in (b"SOMA 2 2\n", b"X" * 20_000, b"DIV 1 3\n" * 10_000, b"SOMA 1", b""):
        received += len(asked)
        sent += len(daemon.ask(asked))
    found = wait_for(daemon, connections_total__tcp=5, connections_open=0)
    assert found["calcd_received_bytes_total"] == received
    assert found["calcd_sent_bytes_total"] == sent


def test_refusals_are_counted_by_reason(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS, "--max-connections", "2", "--max-connections-per-host", "1")
    address = ("127.0.0.1", daemon.port)
    with daemon.connect() as first:
        ask(first, b"PING\n")
        with daemon.connect() as refused:
            assert read_all(refused).startswith(b"ERR BUSY ")
        with socket.create_connection(address, TIMEOUT, ("127.0.0.2", 0)) as second:
            ask(second, b"PING\n")
            for host in ("127.0.0.3", "127.0.0.4"):
                with socket.create_connection(address, TIMEOUT, (host, 0)) as refused:
                    assert read_all(refused).startswith(b"ERR BUSY ")
    found = wait_for(daemon, connections_open=0)
    assert found["calcd_connections_refused_total.busy-host"] == 1
    assert found["calcd_connections_refused_total.busy"] == 2
    assert found["calcd_errors_total.BUSY"] == 3
    assert found["calcd_connections_total.tcp"] == 2


def test_clients_that_may_not_connect_and_dropped_datagrams(start_daemon: Daemons) -> None:
    options = ("-l", "tcp://127.0.0.1:0", "-l", "udp://127.0.0.1:0", "--allow", "192.0.2.0/24")
    daemon = start_daemon(*options, *METRICS)
    assert daemon.ask(b"").startswith(b"ERR FORBIDDEN ")
    with datagrams_to(daemon) as client:
        for _ in range(3):
            client.send(b"PING")
    wait_until(
        lambda: scrape(daemon)["calcd_datagrams_dropped_total.not-allowed"] == 3, "the drops"
    )
    found = scrape(daemon)
    assert found["calcd_datagrams_total"] == 3
    assert found["calcd_connections_refused_total.forbidden"] == 1
    assert found["calcd_requests_total"] == 0


def test_suppressed_log_lines_are_counted(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS, "--allow", "192.0.2.0/24")
    for _ in range(130):
        daemon.ask(b"")
    found = scrape(daemon)
    assert found["calcd_connections_refused_total.forbidden"] == 130
    assert 0 < found["calcd_log_lines_suppressed_total"] <= 30


def test_reloads_are_counted(start_daemon: Daemons, tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"
    file.write_text("[calcd]\nlisten = tcp://127.0.0.1:0\nmetrics = http://127.0.0.1:0\n")
    daemon = start_daemon("-c", str(file))
    before = scrape(daemon)
    last = "calcd_settings_last_reload_success_timestamp_seconds"
    assert before[last] == before["calcd_start_time_seconds"]
    with file.open("a") as settings:
        settings.write("max_connections = none\n")
    daemon.process.send_signal(signal.SIGHUP)
    found = wait_for(daemon, reloads_total__failure=1, settings_last_reload_successful=0)
    assert found[last] == before[last]
    file.write_text(file.read_text().replace("none", "7"))
    daemon.process.send_signal(signal.SIGHUP)
    found = wait_for(daemon, reloads_total__success=1, connections_limit=7)
    assert found["calcd_settings_last_reload_successful"] == 1
    assert found[last] > before[last]


def test_stats_tell_the_same(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    daemon.ask(b"SOMA 2 2\nX\nX\nDIV 1 0\n")
    wait_for(daemon, connections_open=0)
    # That which asks is open.
    wait_until(lambda: stats(daemon)["connections_open"] == "1", "what was told before to be old")
    told, found = stats(daemon), scrape(daemon)
    assert (told["errors"], told["errors.UNKNOWN-OPERATION"]) == ("3", "2")
    assert int(told["requests"]) >= 4
    served = {re.sub(r"_total(?=\.|$)", "", name.removeprefix("calcd_")) for name in found}
    labels_of_one = ("version", "loop_lag_seconds_count")
    for name in told:
        has_labels = [each for each in served if each.startswith(f"{name}.")]
        assert name in served or has_labels or name in labels_of_one, name


# How it is served


def test_there_is_one_path_and_one_method(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    assert get(daemon, "/") == (200, "calcd: metrics are at /metrics\n")
    assert get(daemon, "/metrics/x") == (404, "metrics are at /metrics\n")
    assert get(daemon, method="POST") == (405, "POST is not allowed: use GET\n")
    assert get(daemon, "/metrics?name[]=calcd_requests_total")[1].count("# TYPE") == 1


def test_several_urls_are_served(start_daemon: Daemons) -> None:
    daemon = start_daemon("--metrics", "http://127.0.0.1:0 http://127.0.0.2:0")
    first, second = [url for url in daemon.endpoints if url.startswith("http:")]
    for url in (first, second):
        host, _, port = url.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
        connection.request("GET", "/metrics")
        assert b"calcd_build_info" in connection.getresponse().read()
        connection.close()
    assert "listening on http://127.0.0.2:" in daemon.log


def test_a_port_open_to_others_is_warned_of(start_daemon: Daemons) -> None:
    daemon = start_daemon("--metrics", "http://0.0.0.0:0", "--allow", "127.0.0.1")
    (line,) = daemon.logs("is open to everybody")
    assert "http://0.0.0.0:" in line
    assert line.endswith(": let a firewall restrict it, or listen on localhost")
    assert get(daemon)[0] == 200  # allow is not for these


def test_slow_clients_delay_only_each_other(start_daemon: Daemons) -> None:
    code = "import calcd.daemon.metricsserver as m; m._DEADLINE, m._CHECK = 0.5, 0.05"
    daemon = start_daemon(*METRICS, code=code)
    daemon.ask(b"PING\n")
    before = daemon.count_threads()
    with slow_clients(daemon, 40) as clients:
        wait_until(lambda: daemon.count_threads() > before + 2, "threads for some of them")
        assert daemon.count_threads() <= before + 8
        assert daemon.ask(b"SOMA 2 2\n") == b"4\n"
        # They are cut, though they send a byte now and then.
        for client in clients:
            with pytest.raises(ConnectionError):  # noqa: PT012 (which of both sees it first)
                while True:
                    client.sendall(b"x")
                    client.settimeout(0.05)
                    try:
                        assert client.recv(100) == b""
                        raise ConnectionError
                    except TimeoutError:
                        continue
        assert get(daemon)[0] == 200
    wait_until(lambda: daemon.count_threads() <= before, "the threads to end")


def test_what_is_not_http_harms_nobody(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS, "--log-level", "debug")
    for sent in (
        b"\0" * 70_000 + b"\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics\r\n",
        b"GET http://[/ HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"SOMA 2 2\n",
        b"",
        b"GET /%ff%00\x1b[2J HTTP/1.1\r\n\r\n",
    ):
        with (
            socket.create_connection(("127.0.0.1", daemon.port_of("http")), TIMEOUT) as client,
            suppress(ConnectionError),  # it was cut in the middle of what it sent
        ):
            request_all(client, sent)
    assert get(daemon)[0] == 200
    assert "Traceback" not in daemon.log
    assert "\x1b" not in daemon.log


def test_a_format_that_is_no_format_is_not_minded(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    for accept in "text/plain;version=x", "application/openmetrics-text;version=1.x":
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port_of("http"))
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        assert (answer.status, b"calcd_build_info" in answer.read()) == (200, True)
        connection.close()
    assert "Traceback" not in daemon.log


def test_a_request_with_a_long_head_takes_no_memory(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    assert get(daemon)[0] == 200

    def memory() -> int:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+)", status)[0])

    before = memory()
    parts = b"X: " + b"\r\xff" * 32_000 + b"\r\n"  # each CR begins a part of a header
    for head in 99 * parts, b"X: " + b"y" * 20_000 + b"\r\n", 90 * (b"X: " + b"y" * 200 + b"\r\n"):
        with (
            socket.create_connection(("127.0.0.1", daemon.port_of("http")), TIMEOUT) as client,
            suppress(ConnectionError),  # it was answered before all had come
        ):
            client.sendall(b"GET /metrics HTTP/1.1\r\n" + head + b"\r\n")
            assert read_all(client).startswith(b"HTTP/1.0 431 ")
    assert memory() - before < 20_000
    assert "Traceback" not in daemon.log


def test_a_stop_does_not_wait_for_slow_clients(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    with slow_clients(daemon, 12):
        daemon.ask(b"PING\n")
        assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


# Whether it is served


def run_without_the_library(*options: str) -> subprocess.CompletedProcess[str]:
    """Run calcd where prometheus_client is not installed."""
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from calcd.daemon.main import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        check=False,
    )


@pytest.mark.parametrize("options", [(), ("-t",)])
def test_without_the_library_the_setting_is_an_error(options: Sequence[str]) -> None:
    ended = run_without_the_library(*options, "-l", "tcp://127.0.0.1:0", *METRICS)
    assert ended.returncode == 2
    told = ended.stdout.splitlines()
    assert [line.endswith(", and the options --listen --metrics") for line in told] == (
        [True] if options else []
    )
    assert ended.stderr == (
        "calcd: --metrics: metrics need the Python package prometheus_client, which is not "
        "installed: pip install '.[metrics]' or Debian's python3-prometheus-client brings it; else "
        "leave metrics empty, and disable calcd-metrics.socket\n"
    )
    assert run_without_the_library("-t", "-l", "tcp://127.0.0.1:0").returncode == 0


def test_without_the_setting_nothing_of_it_is_imported(start_daemon: Daemons) -> None:
    code = (
        "import atexit, sys\n"
        "found = ('prometheus_client', 'http.server', 'wsgiref', 'calcd.daemon.metrics')\n"
        "atexit.register(lambda: print('imported:', *(n for n in found if n in sys.modules)))"
    )
    plain, other = start_daemon(code=code), start_daemon(*METRICS, code=code)
    assert (plain.stop(), other.stop()) == (0, 0)
    assert plain.log.endswith("imported:\n")
    assert other.log.endswith(
        "imported: prometheus_client http.server wsgiref calcd.daemon.metrics\n"
    )


def test_a_port_in_use_is_an_error(daemon: Daemon) -> None:
    ended = run_calcd("-l", "tcp://127.0.0.1:0", "--metrics", f"http://{_address(daemon)}")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.search(
        r"^calcd: --metrics: cannot listen on http://127\.0\.0\.1:\d+: Address already in use: "
        "stop the program that listens there, or choose another endpoint$",
        ended.stderr,
        re.MULTILINE,
    )


def _address(daemon: Daemon) -> str:
    return f"{daemon.host}:{daemon.port}"


# Prometheus itself


@needs_prometheus
def test_promtool_finds_nothing_wrong(start_daemon: Daemons) -> None:
    daemon = start_daemon(*METRICS)
    checked = prometheus.promtool("check", "metrics", data=get(daemon)[1])
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@needs_prometheus
def test_prometheus_scrapes_it(start_daemon: Daemons, tmp_path: Path) -> None:
    daemon = start_daemon(*METRICS)
    daemon.ask(b"SOMA 2 2\nX\n")
    with prometheus.prometheus_in(tmp_path, f"127.0.0.1:{daemon.port_of('http')}") as server:

        def value(expression: str) -> list[float]:
            return [sample for each in server.query(expression) for sample in each.samples.values()]

        wait_until(lambda: value("up") == [1], "a scrape")
        (target,) = server.get("/api/v1/targets")["activeTargets"]
        assert target["lastError"] == ""
        assert value("calcd_requests_total") == [2]
        assert value('calcd_errors_total{code="UNKNOWN-OPERATION"}') == [1]
        assert value('calcd_connections_total{transport="tcp"}') == [1]
        daemon.ask(b"SOMA 2 2\n" * 100)
        wait_until(lambda: value("calcd_requests_total") == [102], "the next scrape")
        wait_until(lambda: value("increase(calcd_requests_total[1m])") > [90], "an increase")
        lag = "histogram_quantile(0.5, calcd_loop_lag_seconds_bucket)"
        assert 0 < value(lag)[0] < 1
        assert value("process_start_time_seconds > 0")
