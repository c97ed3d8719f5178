"""`calcc --fold` and `calcc --each` as scripts use them: the daemon, and servers that fail."""

import fcntl
import os
import random
import select
import socket
import subprocess
import termios
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest
from client_helpers import HOST, Servers, calcc, error_message, receive, running, terminal
from helpers import TIMEOUT, Daemon, Daemons, read_all, wait_until

from calcd.client import fold as folds
from calcd.client.endpoint import Endpoint
from calcd.client.fold import Fold
from calcd.client.pipeline import Pipeline
from calcd.client.protocol import ClientError
from calcd.client.transport import UDP, connect

Done = subprocess.CompletedProcess[bytes]
LEFT_OUT = " (--skip-bad leaves such rows out)"
NO_TOTAL = "; there is no total"


def fold(daemon: Daemon, operation: str, stdin: bytes, *options: object) -> Done:
    return calcc("--fold", operation, *options, daemon.host, daemon.port, stdin=stdin)


def each(daemon: Daemon, template: str, stdin: bytes, *options: object) -> Done:
    return calcc("--each", template, *options, daemon.host, daemon.port, stdin=stdin)


def asked(daemon: Daemon, requests: str) -> str:
    """Return the last of the replies to lines of requests."""
    with socket.create_connection((daemon.host, daemon.port), TIMEOUT) as connection:
        connection.sendall(requests.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection).decode().splitlines()[-1]


def column(count: int, seed: int = 1) -> list[str]:
    """Return prices, always the same ones."""
    chance = random.Random(seed)
    return [f"{chance.randrange(1, 100_000) / 100:.2f}" for _ in range(count)]


def lines(numbers: list[str]) -> bytes:
    return "".join(f"{number}\n" for number in numbers).encode()


# -- Folds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 150, 2000])
@pytest.mark.parametrize("operation", ["SOMA", "MIN", "MAX", "MEDIA"])
def test_a_fold_is_what_the_server_has_for_one_line(
    operation: str, count: int, shared_daemon: Daemon
) -> None:
    numbers = column(count)
    done = fold(shared_daemon, operation, lines(numbers))
    one_line = asked(shared_daemon, f"{operation} {' '.join(numbers)}")
    assert (done.stdout.decode(), done.stderr, done.returncode) == (f"{one_line}\n", b"", 0)


def test_a_product_of_many_numbers_is_rounded_as_on_one_line(shared_daemon: Daemon) -> None:
    numbers = [f"1.{n:03}" for n in range(1, 500)]
    done = fold(shared_daemon, "MUL", lines(numbers))
    assert done.stdout.decode() == asked(shared_daemon, f"MUL {' '.join(numbers)}") + "\n"
    done = fold(shared_daemon, "MUL", lines([*numbers, "0.00"]))  # not 0.00: a step has rounded
    assert done.stdout == b"0\n"


SPECIAL = ("0", "0.00", "-0", "-0.0", "0e5", "1e3", "-1E+2", "5e-3", "00012", "1.", "+.5", "0e-50")


def random_number(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.1:
        return chance.choice(SPECIAL)
    digits = "".join(chance.choices("00123459", k=chance.randrange(1, 12)))
    if kind < 0.2:
        return f"{chance.choice(('', '-'))}{digits[:3]}e{chance.randrange(-30, 31)}"
    places = chance.randrange(len(digits) + 1)
    point = f".{digits[places:]}" if places < len(digits) else ""
    return chance.choice(("", "", "-")) + (digits[:places] or "0") + point


@pytest.mark.parametrize("seed", range(8))
def test_folds_in_many_lines_equal_one_line_to_the_last_zero(
    seed: int, shared_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The precision is small, so that most steps round; half of the columns cancel out."""
    chance = random.Random(seed)
    endpoint = Endpoint(shared_daemon.host, str(shared_daemon.port))
    for _ in range(40):
        settings = {
            "PRECISION": chance.choice(["1", "2", "3", "5", "7", "16", "34", "50"]),
            "ROUNDING": chance.choice(["half-even", "up", "floor", "ceiling", "05up", "half-up"]),
            "NOTATION": chance.choice(["plain", "plain", "scientific"]),
            "EXACT": chance.choice(["off", "off", "off", "on"]),
        }
        operation = chance.choice(["SOMA", "SOMA", "MUL", "MIN", "MAX", "MEDIA"])
        numbers = [random_number(chance) for _ in range(chance.randrange(1, 40))]
        if chance.random() < 0.5:
            numbers += [
                number[1:] if number[0] in "+-" else f"-{number}"
                for number in numbers[: chance.randrange(len(numbers)) + 1]
            ]
            numbers += [random_number(chance) for _ in range(chance.randrange(4))]
        numbers += ["1", "2.50"]
        setup = "".join(f"{name} {value}\n" for name, value in settings.items())
        expected = asked(shared_daemon, f"{setup}{operation} {' '.join(numbers)}")
        monkeypatch.setattr(folds, "NUMBERS", chance.choice([1, 2, 3, 18]))
        size = chance.randrange(2, len(numbers) + 1)
        batches = [
            [number.encode() for number in numbers[begin : begin + size]]
            for begin in range(0, len(numbers), size)
        ]
        with closing(Pipeline(connect(endpoint), endpoint, setup.encode())) as pipeline:
            pipeline.set_up()
            fold = Fold(operation, pipeline)
            if expected.startswith("ERR "):
                with pytest.raises(folds.FoldError):
                    fold._fold(iter(batches))
                continue
            result = fold._fold(iter(batches)).decode()
            assert result == expected, (settings, operation, numbers)
            after = pipeline.ask([name.encode() for name in settings])
        assert [reply.decode() for reply in after] == list(settings.values())


def test_a_mean_is_that_of_the_exact_sum(start_daemon: Daemons) -> None:
    daemon = start_daemon("--precision", "5")
    numbers = ["99999", "0.4"] * 600 + ["-99998"] * 600
    done = fold(daemon, "MEDIA", lines(numbers))
    assert done.stdout.decode() == asked(daemon, f"MEDIA {' '.join(numbers)}") + "\n"


def test_a_mean_whose_sum_has_too_many_digits_is_an_error(shared_daemon: Daemon) -> None:
    numbers = ["1e1000", "1e-1000"]
    done = fold(shared_daemon, "MEDIA", lines(numbers))  # of one line
    assert done.stdout.decode() == asked(shared_daemon, f"MEDIA {' '.join(numbers)}") + "\n"
    done = fold(shared_daemon, "MEDIA", lines(numbers * 100))
    assert (done.stdout, done.returncode) == (b"", 1)
    expected = f"MEDIA: the exact sum of the numbers has more than 980 digits{NO_TOTAL}"
    assert error_message(done) == expected


@pytest.mark.parametrize("operation", ["SOMA", "soma", "ADD", "Add"])
def test_nothing_adds_up_to_zero(operation: str, shared_daemon: Daemon) -> None:
    for nothing in b"", b"\n\r\n \t\n":
        done = fold(shared_daemon, operation, nothing)
        assert (done.stdout, done.stderr, done.returncode) == (b"0\n", b"", 0)


@pytest.mark.parametrize("operation", ["MIN", "MAX", "MUL", "MEDIA"])
def test_nothing_has_no_other_fold(operation: str, shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, operation, b"")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert (
        error_message(done) == f"no numbers came, and {operation} has no value for none{NO_TOTAL}"
    )


@pytest.mark.parametrize("name", ["MEDIA", "média", "MÉDIA", "me\u0301dia", "mean", "Mean"])
def test_an_operation_has_all_its_names(name: str, shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, name, b"1 2 6\n")
    assert (done.stdout, done.returncode) == (b"3\n", 0)


@pytest.mark.parametrize("name", ["sum", "SUB", "DIV", "", "MDC", "\u017foma"])
def test_an_operation_that_does_not_fold_is_a_usage_error(name: str) -> None:
    done = calcc(f"--fold={name}" if name else "--fold", *([] if name else [""]))
    assert (done.stdout, done.returncode) == (b"", 2)
    names = "SOMA, ADD, MUL, MIN, MAX, MEDIA or MEAN"
    if name:
        assert error_message(done) == f"--fold takes {names}, not {name}; see calcc -h"


@pytest.mark.parametrize(
    ("text", "total"),
    [
        pytest.param(b"1.50\r\n2.25\r\n\r\n", b"3.75", id="CRLF"),
        pytest.param(b"\xef\xbb\xbf1.50\r\n2", b"3.50", id="a byte order mark"),
        pytest.param(b"\xef\xbb\xbf1.50", b"1.50", id="a byte order mark in the only row"),
        pytest.param(b"1\n\n \t\n2\n", b"3", id="blank lines"),
        pytest.param(b"1\n2", b"3", id="no newline at the end"),
        pytest.param(b"1\n2\r", b"3", id="CR at the end"),
        pytest.param(b"1\r\r\n\r\r\n2\r\r\n", b"3", id="CR CR LF"),
        pytest.param(b"\0\0001\n\0\n\0002\n", b"3", id="NUL at the start"),
        pytest.param(b"1\n2\0\0", b"3", id="NUL at the end"),
        pytest.param(b"1 2\t3\n  4  \n", b"10", id="several numbers a line"),
        pytest.param("\u22125\n3".encode(), b"-2", id="a minus sign"),
        pytest.param(b"1e3\n-.5\n+1.\n1E-2\n", b"1000.51", id="all forms of numbers"),
        pytest.param(b"9" * 480 + b"\n1\n", b"1E+480", id="long numbers"),
    ],
)
def test_numbers_as_files_have_them(text: bytes, total: bytes, shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, "SOMA", text)
    assert (done.stdout, done.stderr, done.returncode) == (total + b"\n", b"", 0)


def test_a_line_may_have_a_million_numbers(shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, "SOMA", b"1 " * 1_000_000)
    assert (done.stdout, done.returncode) == (b"1000000\n", 0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"price", "'price' is not a number"),
        (
            b"1,000.50",
            "'1,000.50' is not a number: write a point before decimals, and nothing between "
            "thousands",
        ),
        (b"5\v6\f7", r"'5\x0b6\x0c7' is not a number"),
        (b"5\r6\r7", r"'5\r6\r7' is not a number"),
        (b"5\0006", r"'5\x006' is not a number"),
        (b"7 x", "'x' is not a number"),
        (b"1.2.3", "'1.2.3' is not a number"),
        (b"--5", "'--5' is not a number"),
        (b"-", "'-' is not a number"),
        (b"e", "'e' is not a number"),
        (b"pi", "'pi' is not a number"),
        (b"ans", "'ans' is not a number"),
        (b"nan", "'nan' is not a number"),
        (b"1_000", "'1_000' is not a number"),
        (b"0x10", "'0x10' is not a number"),
        ("1e−5".encode(), "'1e−5' is not a number"),
        (b"\xff\x1b[2J", r"'\xff\x1b[2J' is not a number"),
        (b"x" * 99, f"'{'x' * 40}...' is not a number"),
        (
            b"1" * 481,
            f"'{'1' * 40}...' is too long: a number of at most 480 bytes can be folded",
        ),
    ],
)
@pytest.mark.parametrize("before", [2, 40_000])
def test_a_row_that_is_no_number_is_an_error_with_its_line(
    row: bytes, reason: str, before: int, shared_daemon: Daemon
) -> None:
    text = b"1\r\n" * (before - 1) + b"\n" + row + b"\n2\nbad as well\n"
    done = fold(shared_daemon, "SOMA", text)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done) == f"line {before + 1}: {reason}{LEFT_OUT}{NO_TOTAL}"
    done = fold(shared_daemon, "SOMA", text, "--skip-bad")
    assert (done.stdout, done.returncode) == (b"%d\n" % (before + 1), 0)
    assert error_message(done) == f"left out: 2 rows, the first at line {before + 1}: {reason}"


def test_a_fold_without_a_result_is_an_error(shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, "MUL", b"1e1000\n" * 500)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done).startswith("MUL: ERR OVERFLOW ")
    done = fold(shared_daemon, "SOMA", b"1e40\n1\n" * 500, "-e", "EXACT on")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done).startswith("SOMA: ERR INEXACT ")


def test_no_line_has_more_than_1000_bytes(serve: Servers) -> None:
    """So a server with the smallest max_line that is sensible answers them."""
    longest = 0

    def script(connection: socket.socket) -> None:
        nonlocal longest
        with connection.makefile("rwb") as stream:
            for line in stream:
                longest = max(longest, len(line))
                settings = {b"NOTATION": b"plain", b"PRECISION": b"34"}
                stream.write(settings.get(line.strip(), b"0") + b"\n")
                stream.flush()

    for numbers in (["1" * 480], ["1" * 60, "2" * 480], ["1.50"], ["1" * 47]):
        port = serve(script)
        done = calcc("--fold", "MEDIA", HOST, port, stdin=lines(numbers * 1500))
        assert done.returncode == 0, done.stderr
    serve.wait()
    assert 900 < longest <= 1000


def test_a_server_with_short_lines(start_daemon: Daemons, shared_daemon: Daemon) -> None:
    daemon = start_daemon("--max-line", "1000")
    numbers = ["1" * 400, "-" + "1" * 400] * 15
    done = fold(daemon, "SOMA", lines(numbers))
    assert done.stdout.decode() == asked(shared_daemon, f"SOMA {' '.join(numbers)}") + "\n"


# -- Each ----------------------------------------------------------------------------------------


def test_each_row_is_asked(shared_daemon: Daemon) -> None:
    done = each(shared_daemon, "round({} * 0.23, 2)", b"19.99\r\n\n5.00\n1e2")
    assert (done.stdout, done.stderr, done.returncode) == (b"4.60\n1.15\n23.00\n", b"", 0)


def test_many_rows_keep_their_order(shared_daemon: Daemon) -> None:
    done = each(shared_daemon, "{} + 1", lines([str(n) for n in range(100_000)]))
    assert done.stdout == lines([str(n) for n in range(1, 100_001)])
    assert (done.stderr, done.returncode) == (b"", 0)


@pytest.mark.parametrize(
    ("template", "options", "rows", "replies"),
    [
        ("{1} * {2}", [], b"2 3\n  4\t\t5  \n", b"6\n20\n"),
        ("{2} - {1}", [], b"bread 2.49 x\n".replace(b"bread", b"1"), b"1.49\n"),
        ("{2} * 2", [], b"bread 2.49\n", b"4.98\n"),
        ("{3} / {2}", ["-F,"], b"x,4,8\ny , 2 , 8 \n", b"2\n4\n"),
        ("{2}", ["-F", r"\t"], b"a b\t5\n", b"5\n"),
        ("{2}", ["-F", r"\t"], b"\t5\t7\n\t \n \t 6\t\n", b"5\n6\n"),
        ("{2}", ["-F", "::"], b"1::2::3\n", b"2\n"),
        ("{2}", ["-F", " "], b"1   2\n", b"2\n"),
        ("max({})", ["-F", ","], b"3,10,4\n", b"10\n"),
        ("SOMA {}", [], b"1 2 3\n4\n", b"6\n4\n"),
        ("SOMA {}", [], b"10 -3\n", b"7\n"),
        ("SOMA {} -1", [], b"10 -3\n2 1\n", b"6\n2\n"),
        ("SUB {2} {1}", [], b"10 -3\n", b"-13\n"),
        ("{1}e{2}", [], b"3 -2\n", b"0.03\n"),
        ("1e{}", [], b"-2\n", b"0.01\n"),
        ("10 mod {}", [], b"-3\n", b"1\n"),
        ("{1}.{2}", [], b"3 50\n", b"3.50\n"),
        ("(2)*{}", [], b"-3\n", b"-6\n"),
        ("ROUND {1} {2}", [], b"-123.4 -1\n", b"-120\n"),
        ("max(0, {})", ["-F", ","], b"3,-10,4\n5\n", b"4\n5\n"),
        ("{0} + {}", [], b"1\n", b"2\n"),
        ("{}", [], b"5\n \n\t\n6\n", b"5\n6\n"),
        ("{} * 2", [], b"5\n \n6\n \n", b"10\n12\n"),
        ("{}^2", [], b"-3\n3\n", b"9\n9\n"),
        ("{} ** 2 + -{1}^2", [], b"-3\n", b"0\n"),
        ("{}!", [], b"3\n", b"6\n"),
        ("10 % {}", [], b"-3\n", b"1\n"),
        ("2 - {}", [], b"-3\n", b"5\n"),
        ("ROUND {} 2", [], b"-2.675\n", b"-2.68\n"),
        ("UPPER {1} {{}} {}!", [], "olá você\n".encode(), "OLÁ {} OLÁ VOCÊ!\n".encode()),
        ("{} * 2", [], b"5\r\r\n\0006\r\r\n", b"10\n12\n"),
        ("{2} * 2", [], b"5\v6 \t7\n", b"14\n"),
        ("UPPER {}", [], b"\0a\vb\r\r\n", b"A\vB\n"),
        ("{} * 2", [], "\u22125\n".encode(), b"-10\n"),
    ],
)
def test_templates(
    template: str, options: list[str], rows: bytes, replies: bytes, shared_daemon: Daemon
) -> None:
    done = each(shared_daemon, template, rows, *options)
    assert (done.stdout, done.stderr, done.returncode) == (replies, b"", 0)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("2 + 2", "{} stands for the row, and is missing"),
        ("", "{} stands for the row, and is missing"),
        ("{price} * 2", "{price} is not a field: {} is the row, {2} its second field, {{ a brace"),
        ("{} * 2}", "} is not a field: {} is the row, {2} its second field, {{ a brace"),
        ("{1}{2}", "an operator is missing between two fields"),
        ("{1} {2}", "an operator is missing between two fields"),
        ("2 * {}\t{}", "an operator is missing between two fields"),
        ("SOMA {1}{2}", "an operator is missing between two fields"),
        ("{-1}", "{-1} is not a field: {} is the row, {2} its second field, {{ a brace"),
    ],
)
def test_a_template_that_means_nothing_is_a_usage_error(template: str, reason: str) -> None:
    done = calcc("--each", template)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert error_message(done) == f"--each {template}: {reason}; see calcc -h"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"rate = 5", "'=' is not a number"),
        (b"5) + (1", "'5)' is not a number"),
        (b"2+2", "'2+2' is not a number"),
        (b"ans", "'ans' is not a number"),
        (b"PRECISION 1", "'PRECISION' is not a number"),
        (b"price", "'price' is not a number"),
    ],
)
def test_a_row_cannot_change_what_a_request_means(
    row: bytes, reason: str, shared_daemon: Daemon
) -> None:
    text = b"1\n" + row + b"\n2\n"
    done = each(shared_daemon, "{} * rate", text, "-e", "rate = 2")
    assert (done.stdout, done.returncode) == (b"2\n4\n", 1)
    assert error_message(done) == f"not asked: 1 row, the first at line 2: {reason}{LEFT_OUT}"
    done = each(shared_daemon, "{} * rate", text, "-e", "rate = 2", "--skip-bad")
    assert (done.stdout, done.returncode) == (b"2\n4\n", 0)
    assert error_message(done) == f"left out: 1 row, the first at line 2: {reason}"


@pytest.mark.parametrize("row", [b"a\r\0QUIT", b"a\xff\xfab"])
def test_a_row_of_text_is_one_request(row: bytes, shared_daemon: Daemon) -> None:
    done = each(shared_daemon, "UPPER {}", b"x\n" + row + b"\ny\n", "--skip-bad")
    assert (done.stdout, done.returncode) == (b"X\nY\n", 0)
    assert error_message(done).startswith("left out: 1 row, the first at line 2: ")


@pytest.mark.parametrize(
    ("template", "row", "options"),
    [
        ("{} * 2", b"10 -3", []),
        ("2 - {}", b"10\t-3", []),
        ("round({} * 0.23, 2)", b"10 -3", []),
        ("max({})", b"10 -3", []),
        ("SOMA({})", b"10 -3", []),
        ("{} * 2", b"rate -3", []),
        ("rate {}", b"-3 -4", []),
        ("ans {}", b"-3 -4", []),
        ("{} * 2", b"10-3", ["-F", "-"]),
        ("max({} * 2)", b"3,10", ["-F", ","]),
    ],
)
@pytest.mark.parametrize("fold", [[], ["--fold", "SOMA"]])
def test_a_row_of_two_numbers_is_no_operand(
    template: str, row: bytes, options: list[str], fold: list[str], shared_daemon: Daemon
) -> None:
    options = ["-e", "rate = 2", *options, *fold]
    done = each(shared_daemon, template, row + b"\n", *options)
    assert (done.stdout, done.returncode) == (b"", 1)
    reason = f"line 1: '{row.decode()}' has 2 fields: {{1}} is the first"
    assert reason in error_message(done)


@pytest.mark.parametrize("template", ["rate {}", "2{}", "{1}.{1}", "e{}", "(2) {}", "3! {1}"])
@pytest.mark.parametrize("row", ["-3", "+3", "\u22123"])
def test_the_sign_of_a_value_is_no_operator(template: str, row: str, shared_daemon: Daemon) -> None:
    done = each(shared_daemon, template, f"{row}\n".encode(), "-e", "rate = 2")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert f"line 1: the sign of '{row}' would be an operator" in error_message(done)


def test_the_rows_after_a_bad_row_are_asked(shared_daemon: Daemon) -> None:
    rows = b"1\nx\n0\n" + b"2\n" * 40_000 + b"y\n4\n"
    done = each(shared_daemon, "8 / {}", rows)
    first, error, *others = done.stdout.splitlines()
    assert (first, others) == (b"8", [b"4"] * 40_000 + [b"2"])
    assert error.startswith(b"ERR DIVISION-BY-ZERO ")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        f"calcc: not asked: 2 rows, the first at line 2: 'x' is not a number{LEFT_OUT}",
        "calcc: errors: 1 row, the first at line 3: ERR DIVISION-BY-ZERO division by zero",
    ]
    done = each(shared_daemon, "8 / {}", b"x\n", "-Q")
    assert (done.stdout, done.returncode) == (b"", 1)
    done = each(shared_daemon, "8 / {}", b"1\nx\n2\n", "--fold", "SOMA")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done) == f"line 2: 'x' is not a number{LEFT_OUT}{NO_TOTAL}"


def test_a_row_may_have_names_that_were_assigned(shared_daemon: Daemon) -> None:
    rates = ["-e", "eur = 1.08", "-e", "usd=1"]
    done = each(shared_daemon, "{1} * {2}", b"1.5 EUR\n2 usd\n3 gbp\n", *rates)
    assert (done.stdout, done.returncode) == (b"1.620\n2\n", 1)
    reason = f"line 3: 'gbp' is not a number{LEFT_OUT}"
    assert error_message(done) == f"not asked: 1 row, the first at {reason}"


def test_a_field_that_is_missing_is_an_error(shared_daemon: Daemon) -> None:
    done = each(shared_daemon, "{2} + 1", b"1 2\n\n3\n4 5\n")
    assert (done.stdout, done.returncode) == (b"3\n6\n", 1)
    reason = f"line 3: there is no field 2 in '3'{LEFT_OUT}"
    assert error_message(done) == f"not asked: 1 row, the first at {reason}"
    done = each(shared_daemon, "{2} + 1", b"1,2\n3,\n4,5\n", "-F,", "--skip-bad")
    assert (done.stdout, done.returncode) == (b"3\n6\n", 0)
    assert (
        error_message(done)
        == "left out: 1 row, the first at line 2: an empty field is not a number"
    )


def test_errors_stand_among_the_replies_and_are_counted(shared_daemon: Daemon) -> None:
    rows = b"1 1\n\n1 0\n4 2\n0 0\n"
    done = each(shared_daemon, "{1} / {2}", rows)
    assert done.stdout.splitlines()[0::2] == [b"1", b"2"]
    assert done.stdout.splitlines()[1].startswith(b"ERR DIVISION-BY-ZERO ")
    assert done.returncode == 1
    first = "the first at line 3: ERR DIVISION-BY-ZERO division by zero"
    assert error_message(done) == f"errors: 2 rows, {first}"
    done = each(shared_daemon, "{1} / {2}", rows, "--skip-bad")
    assert (done.stdout, done.returncode) == (b"1\n2\n", 0)
    assert error_message(done) == f"left out: 2 rows, {first}"


def test_what_rows_come_to_is_folded(shared_daemon: Daemon) -> None:
    prices = column(3000)
    done = each(shared_daemon, "round({} * 0.23, 2)", lines(prices), "--fold", "SOMA")
    vats = each(shared_daemon, "round({} * 0.23, 2)", lines(prices)).stdout
    assert done.stdout == fold(shared_daemon, "SOMA", vats).stdout
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_row_without_a_result_has_no_total(shared_daemon: Daemon) -> None:
    rows = b"1 1\n1 0\nx y\n4 2\n"
    done = each(shared_daemon, "{1} / {2}", rows, "--fold", "SOMA")
    assert (done.stdout, done.returncode) == (b"", 1)
    reason = "line 2: ERR DIVISION-BY-ZERO division by zero"
    assert error_message(done) == f"{reason}{LEFT_OUT}{NO_TOTAL}"
    done = each(shared_daemon, "{1} / {2}", rows, "--fold", "SOMA", "--skip-bad")
    assert (done.stdout, done.returncode) == (b"3\n", 0)
    assert error_message(done).startswith("left out: 2 rows, the first at line 2: ERR DIVISION")


def test_the_fold_does_not_disturb_the_session_of_the_rows(shared_daemon: Daemon) -> None:
    rows = lines([str(n) for n in range(1, 3001)])
    options = ["-e", "PRECISION 9", "-e", "0", "--fold"]
    done = each(shared_daemon, "ans + {}", rows, *options, "MAX")
    assert done.stdout == b"4501500\n"
    done = each(shared_daemon, "{} / 3", rows, *options, "MEDIA")
    assert done.stdout == b"500.166667\n"


# -- What is asked first, and usage --------------------------------------------------------------


def test_what_is_asked_first_holds_for_the_rows_and_is_not_shown(shared_daemon: Daemon) -> None:
    done = each(shared_daemon, "ROUND {} 1", b"0.25\n", "-e", "ROUNDING half-up")
    assert (done.stdout, done.stderr, done.returncode) == (b"0.3\n", b"", 0)
    done = fold(shared_daemon, "MEAN", b"1 1 0\n", "-e", "PRECISION 3")
    assert done.stdout == b"0.667\n"


def test_what_is_asked_first_and_is_an_error_ends_it(shared_daemon: Daemon) -> None:
    done = fold(shared_daemon, "SOMA", b"1\n", "-e", "PRECISION 5000")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done).startswith("-e PRECISION 5000: ERR INVALID-NUMBER ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-F", ","], "-F goes with --fold or --each"),
        (["--skip-bad"], "--skip-bad goes with --fold or --each"),
        (["--fold", "SOMA", "-F", ""], "-F needs a separator"),
        (["--fold"], "--fold needs a value"),
        (["--fold="], "--fold takes SOMA, ADD, MUL, MIN, MAX, MEDIA or MEAN, not "),
        (
            ["-u", "--fold", "SOMA"],
            "-u cannot be used with --fold: each datagram has its own session",
        ),
        (
            ["-u", "--each", "{}*x", "-e", "x=2"],
            "-u cannot be used with -e and --each: each datagram has its own session",
        ),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], reason: str) -> None:
    done = calcc(*arguments)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert error_message(done) == f"{reason}; see calcc -h"


def test_rows_over_udp(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "udp://127.0.0.1:0")
    port = daemon.endpoints[0].rpartition(":")[2]
    done = calcc("-u", "--each", "{} * 2", HOST, port, stdin=b"1\n2\n3\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"2\n4\n6\n", b"", 0)


def test_a_datagram_of_two_replies_ends_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        server.settimeout(TIMEOUT)
        port = server.getsockname()[1]
        with running("-u", "--each", "{} * 2", HOST, port) as process:
            process.stdin.write(b"1\n")
            _, client = server.recvfrom(100)
            server.sendto(b"2\n3\n", client)
            assert process.wait(TIMEOUT) == 3
            assert b"port %d: the server has sent more than" % port in process.stderr.read()
            assert process.stdout.read() == b""


# -- Slow input, lost connections ----------------------------------------------------------------


def test_replies_come_while_input_is_still_open(shared_daemon: Daemon) -> None:
    with running("--each", "{} * 2", shared_daemon.host, shared_daemon.port) as process:
        for number in range(3):
            process.stdin.write(b"%d\n" % number)
            assert process.stdout.read(2) == b"%d\n" % (2 * number)
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0


def test_input_that_cannot_be_read(shared_daemon: Daemon) -> None:
    where = shared_daemon.host, shared_daemon.port
    with open(os.devnull, "wb") as not_readable:
        done = calcc("--each", "{} * 2", *where, stdin=not_readable)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == "standard input: bad file descriptor; 0 rows have a reply"


def test_the_timeout_is_for_the_server_and_not_for_the_input(shared_daemon: Daemon) -> None:
    arguments = ("-w", "0.2", shared_daemon.host, shared_daemon.port)
    with running("--fold", "SOMA", *arguments) as process:
        process.stdin.write(b"1\n")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.6)
        process.stdin.write(b"2\n")
        process.stdin.close()
        assert process.stdout.read() == b"3\n"


def test_a_silent_server_is_a_timeout(serve: Servers) -> None:
    done = calcc("--fold", "SOMA", "-w", "0.2", HOST, serve(serve.silent), stdin=b"1\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith(f": timed out{NO_TOTAL}")


@pytest.mark.parametrize("count", [1, 400, 2000])
def test_the_timeout_after_the_input_holds_for_a_fold(count: int, serve: Servers) -> None:
    port = serve(serve.silent)
    done = calcc("--fold", "SOMA", "-q", "0.2", HOST, port, stdin=b"1\n" * count)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert ": timed out" in error_message(done)


@pytest.mark.parametrize(
    ("options", "rows", "expected"),
    [
        (["--fold", "SOMA"], 1, b"2"),
        (["--fold", "SOMA"], 2000, b"2001"),
        (["--fold", "MEDIA"], 2000, b"1"),
        (["--each", "{} * x", "-e", "x=3", "--fold", "MAX"], 2000, b"3"),
    ],
)
def test_a_connection_that_was_closed_while_idle_is_renewed(
    options: list[str], rows: int, expected: bytes, start_daemon: Daemons
) -> None:
    daemon = start_daemon("--idle-timeout", "0.1")
    with running(*options, daemon.host, daemon.port) as process:
        process.stdin.write(b"1\n" * (rows // 2))
        wait_until(lambda: is_read(process), "the rows to be read")
        process.stdin.write(b"1\n" * (rows - rows // 2))
        wait_until(lambda: "how=idle-timeout" in daemon.log, "the connection to be closed")
        process.stdin.write(b"1\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0, process.stderr.read()
        assert process.stdout.read() == expected + b"\n"


def test_a_fold_goes_on_when_another_server_takes_over(start_daemon: Daemons) -> None:
    daemon = start_daemon("--reuse-port", "on")
    with running("--fold", "SOMA", daemon.host, daemon.port) as process:
        for _ in range(2):
            process.stdin.write(b"0.25\n" * 1000)
            wait_until(lambda: is_read(process), "the rows to be read")
        start_daemon("-l", f"tcp://{daemon.host}:{daemon.port}", "--reuse-port", "on")
        daemon.stop()
        process.stdin.write(b"0.25\n" * 2000)
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0, process.stderr.read()
        assert process.stdout.read() == b"1000.00\n"


def is_read(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether a process has read all that its standard input holds."""
    assert process.stdin
    held = fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, b"\0" * 4)
    return bool(held == b"\0" * 4)


def test_rows_that_depend_on_a_lost_session_are_not_asked(start_daemon: Daemons) -> None:
    daemon = start_daemon("--idle-timeout", "0.1")
    with running("--each", "ans + {}", "-e", "0", daemon.host, daemon.port) as process:
        process.stdin.write(b"1\n")
        assert process.stdout.read(2) == b"1\n"
        wait_until(lambda: "how=idle-timeout" in daemon.log, "the connection to be closed")
        process.stdin.write(b"1\n")
        process.stdin.close()
        assert process.wait(TIMEOUT) == 3
        assert b"1 row has a reply, and none from line 2 on" in process.stderr.read()
        assert process.stdout.read() == b""


@pytest.mark.parametrize("last", [b"", b"4"])
def test_a_connection_is_not_renewed_for_ever(last: bytes, serve: Servers) -> None:
    def one_reply(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"2\n")

    def no_reply(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(last)

    port = serve(one_reply, no_reply)
    done = calcc("--each", "{} * 2", HOST, port, stdin=b"1\n2\n3\n")
    assert (done.stdout, done.returncode) == (b"2\n", 3)
    lost = "connection closed by the server; 1 row has a reply, and none from line 2 on"
    assert error_message(done) == f"{HOST} port {port}: {lost}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--each", "{} * 2"], "; 0 rows have a reply, and none from line 1 on"),
        (["--each", "{} * 2", "--skip-bad"], "; 0 rows have a reply, and none from line 1 on"),
        (["--each", "{} * x", "-e", "x = 1", "-e", "0"], ""),
        (["--fold", "SOMA", "--skip-bad"], NO_TOTAL),
        (["--fold", "SOMA", "-e", "x = 1"], NO_TOTAL),
    ],
)
@pytest.mark.parametrize("count", [1, 3000])
def test_a_full_server_gives_no_replies_to_rows(
    arguments: list[str], told: str, count: int, start_daemon: Daemons
) -> None:
    daemon = start_daemon("--max-connections-per-host", "1")
    with socket.create_connection((daemon.host, daemon.port), TIMEOUT) as connection:
        connection.sendall(b"PING\n")
        receive(connection, b"PONG\n")
        done = calcc(*arguments, daemon.host, daemon.port, stdin=b"1\n" * count)
    assert (done.stdout, done.returncode) == (b"", 3)
    message = error_message(done)
    assert message.startswith(f"{daemon.host} port {daemon.port}: ERR BUSY ")
    assert message.endswith(told)


@pytest.mark.parametrize("setup", [[], ["-e", "x = 1"]])
def test_a_fold_of_replies_needs_two_connections(setup: list[str], start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-connections-per-host", "1")
    done = each(daemon, "{} * 2", b"1\n2\n", "--fold", "SOMA", "--skip-bad", *setup)
    assert (done.stdout, done.returncode) == (b"", 3)
    message = error_message(done)
    assert message.startswith(f"{daemon.host} port {daemon.port}: ERR BUSY ")
    assert message.endswith(f"; --fold with --each has two connections{NO_TOTAL}")


@pytest.mark.parametrize("code", ["BUSY", "FORBIDDEN", "TIMEOUT"])
@pytest.mark.parametrize("options", [[], ["--skip-bad"]])
def test_a_refusal_is_no_reply_to_a_row(code: str, options: list[str], serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"1 * 2\n2 * 2\n3 * 2\n")
        connection.sendall(b"2\nERR %b because\n" % code.encode())

    port = serve(script)
    done = calcc("--each", "{} * 2", *options, HOST, port, stdin=b"1\n\n2\n3\n")
    assert (done.stdout, done.returncode) == (b"2\n", 3)
    told = "1 row has a reply, and none from line 3 on"
    assert error_message(done) == f"{HOST} port {port}: ERR {code} because; {told}"


def test_a_row_that_is_too_long_for_the_server_is_not_left_out(start_daemon: Daemons) -> None:
    daemon = start_daemon("--max-line", "64")
    rows = b"1\n%0100d\n3\n" % 2
    reason = "line 2: ERR LINE-TOO-LONG "
    done = each(daemon, "{} * 2", rows, "--skip-bad", "--fold", "SOMA")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done).startswith(reason)
    assert error_message(done).endswith(NO_TOTAL)
    done = each(daemon, "{} * 2", rows, "--skip-bad")
    first, second, third = done.stdout.splitlines()
    assert (first, third) == (b"2", b"6")
    assert second.startswith(b"ERR LINE-TOO-LONG ")
    assert done.returncode == 1
    assert error_message(done).startswith(f"errors: 1 row, the first at {reason}")


@pytest.mark.parametrize("code", ["OVERLOADED", "INTERNAL"])
def test_a_row_that_the_server_had_no_time_for_is_not_left_out(code: str, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"1 * 2\n2 * 2\n3 * 0\n")
        connection.sendall(b"2\nERR %b later\nERR SYNTAX no\n" % code.encode())
        connection.recv(1)

    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    rows = b"1 2\n2 2\n3 0\n"
    done = calcc("--each", "{1} * {2}", "--skip-bad", HOST, serve(script), stdin=rows)
    assert (done.stdout, done.returncode) == (b"2\nERR %b later\n" % code.encode(), 1)
    assert f"errors: 1 row, the first at line 2: ERR {code} later" in done.stderr.decode()
    assert "left out: 1 row, the first at line 3: ERR SYNTAX no" in done.stderr.decode()
    arguments = ("--each", "{1} * {2}", "--skip-bad", "--fold", "SOMA", HOST)
    done = calcc(*arguments, serve(script, silent), stdin=rows)
    assert (done.stdout, done.returncode) == (b"", 1)
    assert error_message(done) == f"line 2: ERR {code} later{NO_TOTAL}"


@pytest.mark.parametrize("code", ["OVERLOADED", "INTERNAL", "LINE-TOO-LONG", "BUSY"])
def test_a_fold_that_the_server_does_not_work_out(code: str, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"SOMA 1 2\n")
        connection.sendall(b"ERR %b later\n" % code.encode())

    done = calcc("--fold", "SOMA", HOST, serve(script), stdin=b"1\n2\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done).endswith(f": ERR {code} later{NO_TOTAL}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fold", "SOMA"],
        ["--fold", "SOMA", "-e", "0"],
        ["--each", "{}"],
        ["--each", "{}", "-e", "0"],
    ],
)
def test_a_server_that_closes_at_once_is_tried_again(arguments: list[str], serve: Servers) -> None:
    def close(connection: socket.socket) -> None:
        connection.recv(100)

    def reply(connection: socket.socket) -> None:
        with connection.makefile("rwb", 0) as stream:
            while line := stream.readline():
                stream.write(line.split()[-1] + b"\n")

    port = serve(close, close, close, reply)
    done = calcc(*arguments, "--retry", str(TIMEOUT), HOST, port, stdin=b"5\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"5\n", b"", 0)


@pytest.mark.parametrize("setup", [[], ["-e", "0"]])
def test_a_server_that_closes_at_once_is_not_tried_for_ever(
    setup: list[str], serve: Servers
) -> None:
    def cut(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"4")

    def close(connection: socket.socket) -> None:
        connection.recv(100)

    scripts = [cut] if setup else [close, close, cut]  # a part of a reply was received
    arguments = ("--fold", "SOMA", *setup, "--retry", str(TIMEOUT))
    done = calcc(*arguments, HOST, serve(*scripts), stdin=b"5\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert "connection closed by the server" in error_message(done)


def test_a_reply_too_many_ends_it(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"SOMA 1 2\n")
        connection.sendall(b"3\n4\n")

    done = calcc("--fold", "SOMA", HOST, serve(script), stdin=b"1\n2\n")
    assert (done.stdout, done.returncode) == (b"", 3)
    assert "more than was asked for" in error_message(done)


def test_a_reply_too_many_after_those_to_the_setup(serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        receive(connection, b"x=1\n")
        connection.sendall(b"1\n")
        assert begun.wait(TIMEOUT)
        connection.sendall(b"9\n")
        connection.recv(1)

    begun = threading.Event()
    endpoint = Endpoint(HOST, str(serve(script)))
    server = connect(endpoint)
    assert not isinstance(server, UDP)
    with closing(Pipeline(server, endpoint, b"x=1\n")) as pipeline:
        assert pipeline.set_up() == [b"1"]
        begun.set()
        assert select.select([server], [], [], TIMEOUT)[0]
        with pytest.raises(ClientError, match="more than was asked for"):
            pipeline.ask([b"x"])


@pytest.mark.parametrize("reply", [b"\x1b[2J\n", b"plain\n"])
def test_a_server_that_is_none_of_calcds(reply: bytes, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rwb", 0) as stream:
            while stream.readline():
                stream.write(reply)

    done = calcc("--fold", "SOMA", HOST, serve(script), stdin=b"1\n" * 2000)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert "\x1b" not in error_message(done)


@pytest.mark.parametrize("reply", [b"nan", b"PONG", b"", b"1 2", b"Infinity"])
@pytest.mark.parametrize("count", [2, 2000])
def test_a_total_is_a_number(reply: bytes, count: int, serve: Servers) -> None:
    def script(connection: socket.socket) -> None:
        settings = {b"NOTATION": b"scientific", b"PRECISION": b"34"}
        with suppress(OSError), connection.makefile("rwb", 0) as stream:
            while line := stream.readline():
                is_last = count == 2 or line.startswith(b"=")
                stream.write((reply if is_last else settings.get(line.strip(), b"0")) + b"\n")

    port = serve(script)
    done = calcc("--fold", "SOMA", HOST, port, stdin=b"1\n" * count)
    assert (done.stdout, done.returncode) == (b"", 3)
    assert error_message(done) == f"{reply.decode()} is no reply to SOMA{NO_TOTAL}"


def test_a_reader_that_has_gone_ends_it(shared_daemon: Daemon) -> None:
    arguments = ("--each", "{} * 2", shared_daemon.host, shared_daemon.port)
    with running(*arguments) as process:
        process.stdin.write(b"1\n")
        assert process.stdout.read(2) == b"2\n"
        process.stdout.close()
        assert process.wait(TIMEOUT) == -13  # SIGPIPE


def test_rows_may_be_typed(shared_daemon: Daemon, tmp_path: Path) -> None:
    with terminal(tmp_path, "--fold", "SOMA", shared_daemon.host, shared_daemon.port) as screen:
        screen.type("1 2\n3\n")
        screen.expect("1 2\n3\n")
        screen.type(b"\x04")
        screen.expect("6\n")
        assert screen.end() == 0
