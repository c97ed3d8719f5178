"""calcd through a real telnet, driven by expect as a person drives it from a terminal.

What telnet sends is its own affair, and more than was typed: a command for Ctrl-C, the byte 4
for Ctrl-D, CR LF for Enter, and CR NUL in its character mode (RFC 1123, 3.3.1).
"""

import shutil
import subprocess

import pytest
from helpers import TIMEOUT, Daemon

for program in ("inetutils-telnet", "expect"):
    if shutil.which(program) is None:
        pytest.skip(f"needs the Debian package {program}", allow_module_level=True)

# Tcl. A script says what is typed and what must be seen; whatever else happens fails it.
PROCEDURES = r"""
set timeout 10
set send_slow {1 0.01}
spawn -noecho inetutils-telnet HOST PORT
set terminal $spawn_out(slave,name)

proc fail {why} { puts stderr "\n$why"; exit 1 }

expect_after {
    timeout { fail "waited in vain" }
    eof { fail "telnet ended too early" }
}

# Telnet says that it is connected before it changes the terminal: a key that comes between
# the two would do what it does to any program.
proc terminal_has {setting} {
    for {set tries 0} {![string match "*$setting*" [exec stty -a < $::terminal]]} {incr tries} {
        if {$tries > 1000} { fail "the terminal never had $setting" }
        after 10
    }
}

proc see {reply} { expect -re "(^|\n)$reply\r*\n" }

proc command {words} {
    send "\x1d"
    expect "telnet> "
    send "$words\r"
    expect "$words\r\n"
    terminal_has "eol = ^]"
}

proc character_mode {} {
    command "mode character"
    terminal_has "-icanon"
}

proc see_the_end {} {
    expect "Connection closed by foreign host."
    expect eof
    wait
}

expect "Escape character is '^]'.\r\n"
terminal_has "eol = ^]"
"""


def telnet(daemon: Daemon, script: str) -> None:
    """Have a conversation through telnet; fail the test where the script does."""
    procedures = PROCEDURES.replace("HOST PORT", f"{daemon.host} {daemon.port}")
    done = subprocess.run(
        ["expect", "-n", "-N", "-c", f"{procedures}{script}\nexit 0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="backslashreplace")


def test_asks_and_gets_answers(shared_daemon: Daemon) -> None:
    telnet(
        shared_daemon,
        r"""
        send "SOMA 2 2\r"
        see 4
        send "DIV 1 3\r"
        see 0.3{34}
        send "DIV 1 0\r"
        see "ERR DIVISION-BY-ZERO .*"
        """,
    )


def test_quit_gets_its_bye_and_the_end(shared_daemon: Daemon) -> None:
    telnet(
        shared_daemon,
        r"""
        send "QUIT\r"
        see BYE
        see_the_end
        """,
    )


@pytest.mark.parametrize("half_a_line", ["", "SOMA 2 2"])
def test_ctrl_c_ends_the_session(shared_daemon: Daemon, half_a_line: str) -> None:
    telnet(
        shared_daemon,
        rf"""
        send "{half_a_line}\x03"
        see_the_end
        """,
    )


def test_ctrl_c_ends_a_session_that_has_answered(shared_daemon: Daemon) -> None:
    telnet(
        shared_daemon,
        r"""
        send "SOMA 2 2\r"
        see 4
        send "\x03"
        see_the_end
        """,
    )


def test_a_lone_ctrl_d_ends_the_session(shared_daemon: Daemon) -> None:
    telnet(
        shared_daemon,
        r"""
        send "SOMA 2 2\r"
        see 4
        send "\x04"
        see_the_end
        """,
    )


def test_ctrl_d_in_place_of_enter_sends_a_request_without_a_newline(shared_daemon: Daemon) -> None:
    telnet(
        shared_daemon,
        r"""
        send "SOMA 2 2\x04"
        see ".*4"
        """,
    )


@pytest.mark.parametrize("words", ["send ayt", "send nop", "send synch", "set binary", "mode line"])
def test_commands_of_telnet_leave_the_next_answer_alone(shared_daemon: Daemon, words: str) -> None:
    telnet(
        shared_daemon,
        rf"""
        command "{words}"
        send "SOMA 2 2\rQUIT\r"
        see 4
        see_the_end
        """,
    )


@pytest.mark.parametrize(
    "enter",
    ["CR NUL", "CR LF"],
)
def test_a_request_typed_in_character_mode_is_answered_after_enter(
    shared_daemon: Daemon, enter: str
) -> None:
    telnet(
        shared_daemon,
        rf"""
        if {{"{enter}" == "CR LF"}} {{ command "toggle crlf" }}
        character_mode
        send -s "SOMA 2 2\r"
        see 4
        send -s "SOMA 2 2"
        # There is no echo in this mode: whatever comes now is an answer.
        expect -timeout 1 -re .+ {{ fail "answered before Enter" }} timeout {{}}
        send -s "2\r"
        see 24
        """,
    )
