"""The shells that complete, as people have them, with the completions of ``etc/completions``.

fish prints completions when it is asked. bash and zsh have a terminal, and a key that inserts all
completions of a word into the line; the line's command is then a function that notes its arguments.
"""

import os
import pty
import select
import shutil
import subprocess
import termios
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from helpers import ROOT, TIMEOUT, clean_environment

BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
_COMPLETIONS = ROOT / "etc" / "completions"
_COMMANDS = ("calcd", "calcc")
_KEY = "\x18a"  # Ctrl-X a
_BASHRC = f"""\
. {BASH_COMPLETION}
bind '"\\C-xa": insert-completions'
"""
_ZSHRC = """\
fpath=(~/share/zsh/site-functions $fpath)
autoload -Uz compinit
compinit -D -u
zle -C all-matches complete-word _generic
bindkey '^Xa' all-matches
zstyle ':completion:all-matches:*' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert true
"""


class Shell(ABC):
    """A shell in which the completions are installed. ``home`` is where it runs."""

    program: str

    def __init__(self, home: Path) -> None:
        self.home = home
        share = home / "share"
        for directory, pattern in {
            "bash-completion/completions": "*.bash",
            "zsh/site-functions": "_*",
            "fish/vendor_completions.d": "*.fish",
        }.items():
            (share / directory).mkdir(parents=True)
            for file in _COMPLETIONS.glob(pattern):
                shutil.copy(file, share / directory)
        programs = home / "bin"  # fish completes only commands that are there
        programs.mkdir()
        for command in _COMMANDS:
            (programs / command).symlink_to("/bin/true")
        self._environment = clean_environment(
            HOME=str(home),
            ZDOTDIR=str(home),
            XDG_DATA_DIRS=f"{share}:/usr/share",
            PATH=f"{programs}:{os.environ['PATH']}",
            LC_ALL="C.UTF-8",
            TERM="xterm",
        )

    @classmethod
    def why_not(cls) -> str:
        """Say what is missing here to test this shell; ``""``: nothing."""
        return "" if shutil.which(cls.program) else f"{cls.program} is not installed"

    @abstractmethod
    def complete(self, line: str) -> list[str]:
        """Return what the last word of this command line may be, each a whole word."""

    def close(self) -> None:  # noqa: B027 (fish has nothing to end)
        """End the shell."""


class Fish(Shell):
    """fish."""

    program = "fish"

    def complete(self, line: str) -> list[str]:
        """Return what the last word of this command line may be, each a whole word."""
        done = subprocess.run(
            ["fish", "-c", "complete -C $argv[1]", line],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert done.stderr == ""
        return [shown.partition("\t")[0] for shown in done.stdout.splitlines()]


class _TypedTo(Shell):
    """A shell that is typed to, on a terminal of its own. Its startup file has ``startup``."""

    startup_file: str
    startup: str
    arguments: list[str]

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._notes = home / "notes"
        note = f"{{ printf '%s\\n' \"$@\"; echo; }} >>{self._notes}"
        functions = "".join(f"{command}() {{ {note}; }}\n" for command in _COMMANDS)
        (home / self.startup_file).write_text(self.startup + functions)
        self._keyboard, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 200))
        try:
            self._process = subprocess.Popen(
                [self.program, *self.arguments, "-i"],
                cwd=home,
                env=self._environment,
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        finally:
            os.close(terminal)

    def complete(self, line: str) -> list[str]:
        """Return what the last word of this command line may be, each a whole word."""
        *before, word = line.split(" ")
        self._notes.write_text("")
        os.write(self._keyboard, f"{line}{_KEY}\r".encode())
        shown = b""
        deadline = time.monotonic() + TIMEOUT
        while not (noted := self._notes.read_text()).endswith("\n\n"):
            assert time.monotonic() < deadline, shown
            if select.select([self._keyboard], [], [], 0.01)[0]:
                with suppress(OSError):
                    shown += os.read(self._keyboard, 4096)
        found = noted.split("\n")[len(before) - 1 : -2]
        return [] if found == [word] else found  # what was typed stays where nothing is found

    def close(self) -> None:
        """End the shell."""
        os.close(self._keyboard)
        self._process.kill()
        self._process.wait(TIMEOUT)


class Bash(_TypedTo):
    """bash, with the package bash-completion."""

    program = "bash"
    startup_file = ".bashrc"
    startup = _BASHRC
    arguments = ["--noprofile"]  # noqa: RUF012 (it is not changed)

    @classmethod
    def why_not(cls) -> str:
        """Say what is missing here to test this shell; ``""``: nothing."""
        missing = "" if BASH_COMPLETION.exists() else "bash-completion is not installed"
        return super().why_not() or missing


class Zsh(_TypedTo):
    """zsh, with compinit."""

    program = "zsh"
    startup_file = ".zshrc"
    startup = _ZSHRC
    arguments = ["--no-global-rcs"]  # noqa: RUF012 (it is not changed)
