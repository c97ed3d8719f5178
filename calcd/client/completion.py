"""What the Tab key completes at the prompt, and inserts there. It needs readline."""

import re
import select

from calcd.client import transport
from calcd.client.counting import ReplySplitter
from calcd.client.endpoint import Endpoint
from calcd.client.promptsession import PromptSession, briefly
from calcd.client.protocol import CHUNK, UNEXPECTED, ClientError, without_accents
from calcd.client.state import SETTINGS
from calcd.client.streams import STDIN

HELP = ("HELP", "AJUDA")
MAX_TOPICS = 20  # of HELP that are asked for
MAX_ANSWERS, MAX_ANSWER_SIZE = 10, 2000  # answers that the Tab key offers, characters of each
NUMBER, OPERATION = r"[-+]?[0-9.]+(E[-+]?[0-9]+)?", r"\b[A-Z][A-Z0-9]+\b"  # in replies
CHOICES = r"[A-Z]+ \[([\w-]+(?:\|[\w-]+)+)\]"  # in the help of a setting
# Where a word starts. Not at + and -: -1E+3 is one word.
WORD_DELIMITERS = " \t\n*/%^(),=<>!"


class Words:
    """What a server's HELP names."""

    def __init__(self) -> None:
        self.operations: list[str] = []
        self.topics: list[str] = []
        self.choices: dict[str, list[str]] = {}  # by each name of a setting


def fetch_words(endpoint: Endpoint, setup: bytes = b"") -> Words:
    """Return what HELP names; nothing if the server does not reply in time.

    They are fetched on a connection of their own: a late reply then disturbs no other request.
    """
    limited = briefly(endpoint)
    words = Words()
    try:
        server = transport.connect(limited, endpoint.addresses)
        try:
            *_, text = ask(server, limited, setup + b"HELP\n")
            if text.startswith("ERR "):
                return words
            topics = list(filter(str.islower, re.findall(r"[^\W\d_]+", text)))[:MAX_TOPICS]
            lines = [text, *ask_help(server, limited, topics)]
            names = [re.findall(OPERATION, line) for line in lines if not line.startswith("ERR ")]
            words.topics = topics
            words.operations = list(dict.fromkeys(name for each in names for name in each))
            settings = [name for name in words.operations if name in SETTINGS]
            for name, line in zip(settings, ask_help(server, limited, settings), strict=True):
                if found := re.match(CHOICES, line, re.ASCII):
                    words.choices[name] = found[1].split("|")
        finally:
            server.close()
    except (ClientError, OSError):
        pass  # a server that is not calcd, or an older one
    return words


def ask_help(server: transport.Transport, endpoint: Endpoint, names: list[str]) -> list[str]:
    """Return the lines of help on these names."""
    requests = "".join(f"HELP {name}\n" for name in names).encode()
    return ask(server, endpoint, requests, reused=True)


def ask(
    server: transport.Transport, endpoint: Endpoint, requests: bytes, *, reused: bool = False
) -> list[str]:
    """Return the replies to some requests, which have at most `CHUNK` bytes in all."""
    replies = []
    splitter = ReplySplitter(requests.count(b"\n"))
    left = CHUNK
    for reply in transport.exchange(server, requests, splitter, endpoint, reused=reused):
        left -= len(reply)
        if left < 0:
            raise ConnectionAbortedError(UNEXPECTED)
        replies.append(reply.decode(errors="replace"))
    return replies


class Completer:
    """Completion for the Tab key: operations, assigned names, what HELP and settings take.

    Where a number may stand, and in place of `ans`, Tab inserts the last answer. The next Tab
    replaces it by the one before.
    """

    def __init__(self, session: PromptSession) -> None:
        self._session = session
        self._words: Words | None = None  # not fetched yet
        self._words_of = 0  # the number of the connection before which they were fetched
        self._answers: list[str] = []  # without duplicates, the last one first
        self._inserted = "", "", 0  # the word with an answer, its start before that, which answer
        self._matches: list[str] = []

    def install(self) -> None:
        """Bind the Tab key to this completer."""
        import readline

        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(WORD_DELIMITERS)
        readline.set_completer(self)

    def add_answer(self, reply: str) -> None:
        """Remember a reply that is a number."""
        self._inserted = "", "", 0
        if len(reply) <= MAX_ANSWER_SIZE and re.fullmatch(NUMBER, reply, re.ASCII):
            others = [answer for answer in self._answers if answer != reply]
            self._answers = [reply, *others][:MAX_ANSWERS]

    def __call__(self, word: str, state: int) -> str | None:
        """Return match number `state` for the word before the cursor, as readline calls it."""
        if state == 0 and select.select([STDIN], [], [], 0)[0]:
            self._matches = [f"{word}\t"]  # more input is waiting: a pasted tab is a blank
        elif state == 0:
            import readline

            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._matches = self._complete(before, word)
        return self._matches[state] if state < len(self._matches) else None

    def _complete(self, before: str, word: str) -> list[str]:
        """Return all matches for a word and the text before it."""
        inserted, head, number = self._inserted
        if word and word == inserted:
            return self._insert_answer(head, (number + 1) % len(self._answers))
        setting = without_accents(before.strip(" \t").upper())
        if setting in SETTINGS and (choices := self._fetched().choices.get(setting)):
            return matches(word, choices)
        start = max(word.rfind("+"), word.rfind("-")) + 1
        head, word = word[:start], word[start:]
        command = (before + head).strip(" \t").upper()
        takes_number = word.lower() == "ans" or (not word and command not in ("", *HELP))
        if self._answers and takes_number:
            return self._insert_answer(head, 0)
        words = self._fetched()
        names = [name.lower() if word.islower() else name for name in words.operations]
        names += [*self._session.state.names, *(["ans"] if self._answers else [])]
        found = [name for name in names if name.lower().startswith(word.lower())]
        if command in HELP:
            found += matches(word, words.topics)
        return [head + name for name in found]

    def _fetched(self) -> Words:
        """Return the words of the server, which are fetched once for each connection."""
        if self._words is None or self._words_of != self._session.connections:
            self._words, self._words_of = Words(), self._session.connections
            self._words = fetch_words(self._session.endpoint, self._session.setup)
        return self._words

    def _insert_answer(self, head: str, number: int) -> list[str]:
        """Return one of the answers as the only match."""
        word = head + self._answers[number]
        self._inserted = word, head, number
        return [word]


def matches(word: str, names: list[str]) -> list[str]:
    """Return the names that start with a word, in upper case if the word is."""
    found = [name for name in names if name.lower().startswith(word.lower())]
    return [name.upper() for name in found] if word.isupper() else found
