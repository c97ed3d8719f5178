"""Certificates for the tests of TLS: stored ones, and an authority that makes others."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from helpers import TIMEOUT

STORED = Path(__file__).with_name("tls")  # of unit tests, made by make.sh there
LOCAL = "DNS:localhost,IP:127.0.0.1,IP:::1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in a file each."""

    cert: Path
    key: Path

    def in_one_file(self, directory: Path | None = None) -> Path:
        """Make a file that has both, by default beside the certificate; return its path."""
        path = (directory or self.cert.parent) / f"{self.cert.stem}.both"
        path.write_bytes(self.cert.read_bytes() + self.key.read_bytes())
        return path


def stored(name: str) -> Pair:
    """Return a certificate of the unit tests, and its key."""
    return Pair(STORED / f"{name}.pem", STORED / f"{name}.key")


class Authority:
    """One that signs certificates; ``cert`` is what those who trust it have."""

    def __init__(
        self, directory: Path, name: str = "authority", signed_by: "Authority | None" = None
    ) -> None:
        self._directory = directory
        self._own = self._paths(name)
        self._revoked: list[Path] = []
        # Verifiers that are strict (RFC 5280, 4.2.1.3) want its use to be stated.
        use = "keyUsage=critical,keyCertSign,cRLSign"
        signer = ["-CA", signed_by._own.cert, "-CAkey", signed_by._own.key] if signed_by else []
        options = ["-x509", "-days", "1", "-addext", use, *signer]
        self._make("req", *options, *self._new(self._own, name))

    @property
    def cert(self) -> Path:
        return self._own.cert

    def issue(self, name: str, alternatives: str = "", days: int = 1) -> Pair:
        """Sign a certificate for as many days, negative for one that has expired.

        The alternatives are the names that a server goes by.
        """
        pair = self._paths(name)
        request, extensions = pair.cert.with_suffix(".csr"), pair.cert.with_suffix(".ext")
        names = f"subjectAltName={alternatives}\n" if alternatives else ""
        extensions.write_text(f"authorityKeyIdentifier=keyid\n{names}")
        self._make("req", *self._new(Pair(request, pair.key), name))
        signing = ["-CA", self._own.cert, "-CAkey", self._own.key, "-extfile", extensions]
        self._make("x509", "-req", "-days", days, "-in", request, "-out", pair.cert, *signing)
        return pair

    def issue_for(self, name: str, alternatives: str, begin: float, end: float) -> Pair:
        """Sign a certificate that is valid from, and until, so many hours from now."""
        pair = self.issue(name, alternatives)
        extensions, request = (pair.cert.with_suffix(each) for each in (".ext", ".csr"))
        period = ["-startdate", _hours_from_now(begin), "-enddate", _hours_from_now(end)]
        files = ["-in", request, "-out", pair.cert, "-extfile", extensions]
        self._ca("-batch", "-notext", "-preserveDN", *period, *files)
        return pair

    def revoke(self, *certificates: Path) -> None:
        """Name certificates in the lists that are made from now on."""
        self._revoked += certificates

    def revocation_list(self, begin: float = -1, end: float = 24) -> Path:
        """Make a list that is from, and until, so many hours from now; return its file."""
        crl = self._own.cert.with_suffix(".crl")
        crl.unlink(missing_ok=True)
        self._own.cert.with_suffix(".index").write_text("")
        for certificate in self._revoked:
            self._ca("-revoke", certificate)
        period = [
            "-crl_lastupdate",
            _hours_from_now(begin),
            "-crl_nextupdate",
            _hours_from_now(end),
        ]
        self._ca("-gencrl", *period, "-out", crl)
        return crl

    def _ca(self, *options: object) -> None:
        """Run ``openssl ca``, which keeps an index of what was signed and revoked."""
        index, config = (self._own.cert.with_suffix(each) for each in (".index", ".config"))
        index.touch()
        config.write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={index}\ndefault_md=sha256\npolicy=p\n"
            f"new_certs_dir={self._directory}\nrand_serial=yes\n[p]\ncommonName=supplied\n"
        )
        own = ["-config", config, "-cert", self._own.cert, "-keyfile", self._own.key]
        self._make("ca", *own, *options)

    def _paths(self, name: str) -> Pair:
        return Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")

    def _new(self, pair: Pair, name: str) -> list[object]:
        """Give the options for a new key, and a name without further ado."""
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
        return [*key, "-keyout", pair.key, "-out", pair.cert, "-subj", f"/CN={name}"]

    def _make(self, *arguments: object) -> None:
        command = ["openssl", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stderr.decode()


def _hours_from_now(hours: float) -> str:
    return f"{datetime.now(UTC) + timedelta(hours=hours):%Y%m%d%H%M%SZ}"


class Certificates:
    """What the tests need: a server of this machine, a client, and others that are not trusted."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.server = self.authority.issue("server", LOCAL)
        self.elsewhere = self.authority.issue("elsewhere", "DNS:calcd.example")
        self.expired = self.authority.issue("expired", LOCAL, days=-1)
        self.client = self.authority.issue("client")
        self.stranger = Authority(directory, "stranger")
        self.strange_client = self.stranger.issue("strange-client")
