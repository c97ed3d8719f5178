"""Certificates and revocation lists (RFC 5280): whose they are, and when they are valid.

OpenSSL verifies them. Python's ssl tells neither when a certificate of a file expires nor anything
of a revocation list. So both are read here, as far as their dates.
"""

import codecs
import re
from binascii import a2b_base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

# Of X.690, section 8: tags that RFC 5280 uses.
_INTEGER, _OID, _UTC_TIME, _GENERALIZED_TIME = 0x02, 0x06, 0x17, 0x18
_SEQUENCE, _SET, _VERSION = 0x30, 0x31, 0xA0
_TEXT = {  # encodings of text, by tag (X.680, section 41)
    0x0C: "utf-8",
    **dict.fromkeys((0x12, 0x13, 0x16, 0x1A), "ascii"),  # numeric, printable, IA5, visible
    0x14: "latin-1",  # T.61, as it is used
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
for _encoding in _TEXT.values():
    codecs.lookup(_encoding)  # loads it: later the daemon's user may not read Python's files
_NAMES = {  # RFC 4514, section 3, and those that are common beside it
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
# Bytes. The certificates of clients that are refused are read too: none may take long.
_MAX_NAME, _MAX_OID = 1024, 64
_SPECIAL = re.compile(r'[",+;<>\\]|^[ #]| $')  # RFC 4514, section 2.4
_LABEL = rb"(?:(?:X509 |TRUSTED )?CERTIFICATE|X509 CRL)"  # OpenSSL reads X509 and TRUSTED as well
_PEM = re.compile(  # RFC 7468
    rb"-----BEGIN (?P<label>%b)-----(?P<body>[^-]*+)-----END (?P<end>%b)-----" % (_LABEL, _LABEL)
)


@dataclass(frozen=True)
class Certificate:
    """A certificate: its names as RFC 4514 writes them, its serial number in hexadecimal.

    It is valid from ``begin`` to ``end``, which RFC 5280 calls notBefore and notAfter.
    """

    subject: str
    issuer: str
    serial: str
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class RevocationList:
    """A list of revoked certificates; ``issuer`` is the name of the authority that publishes it.

    It was made at ``begin``, and the next list is due at ``end`` (thisUpdate and nextUpdate in
    RFC 5280); None: the list does not say.
    """

    issuer: str
    begin: datetime
    end: datetime | None


def read_pem(text: bytes) -> Iterator[Certificate | RevocationList | None]:
    """Yield the certificates and revocation lists of a file in PEM; None for each broken one."""
    for found in _PEM.finditer(text):
        if found["label"] != found["end"]:  # OpenSSL reads neither
            continue
        read = read_revocation_list if found["label"] == b"X509 CRL" else read_certificate
        try:
            yield read(a2b_base64(found["body"]))
        except ValueError:
            yield None


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate in DER; raise ValueError if it is none (RFC 5280, section 4.1)."""
    fields = _Reader(_Reader(_Reader(der).take(_SEQUENCE)).take(_SEQUENCE))
    fields.skip(_VERSION)
    serial = _hexadecimal(fields.take(_INTEGER))
    fields.take(_SEQUENCE)  # the signature's algorithm
    issuer = _name(fields.take(_SEQUENCE))
    validity = _Reader(fields.take(_SEQUENCE))
    begin, end = _time(validity), _time(validity)
    return Certificate(_name(fields.take(_SEQUENCE)), issuer, serial, begin, end)


def read_revocation_list(der: bytes) -> RevocationList:
    """Read a revocation list in DER; raise ValueError if it is none (RFC 5280, section 5.1)."""
    fields = _Reader(_Reader(_Reader(der).take(_SEQUENCE)).take(_SEQUENCE))
    fields.skip(_INTEGER)  # the version
    fields.take(_SEQUENCE)  # the signature's algorithm
    issuer = _name(fields.take(_SEQUENCE))
    begin = _time(fields)
    has_next = fields.tag in (_UTC_TIME, _GENERALIZED_TIME)
    return RevocationList(issuer, begin, _time(fields) if has_next else None)


class _Reader:
    """Takes the elements of DER one after the other (X.690, section 8.1), of less than 4 GiB.

    Its methods raise ValueError if the next element is another than is expected, or is cut.
    """

    def __init__(self, der: bytes) -> None:
        self._der, self._at = der, 0

    @property
    def tag(self) -> int | None:
        """The tag of the next element; None at the end."""
        return self._der[self._at] if self._at < len(self._der) else None

    def take(self, tag: int | None) -> bytes:
        """Return the contents of the next element, which has this tag."""
        if tag is None or self.tag != tag:
            raise ValueError(f"tag {self.tag} where {tag} was expected")
        start = self._at + 2
        size = int.from_bytes(self._der[self._at + 1 : start])
        if size >= 0x80:  # the length of the length
            start += size - 0x80
            if not 1 <= size - 0x80 <= 4:
                raise ValueError(f"a length of {size - 0x80} bytes")
            size = int.from_bytes(self._der[self._at + 2 : start])
        self._at = start + size
        if self._at > len(self._der):
            raise ValueError("the end is missing")
        return self._der[start : self._at]

    def skip(self, tag: int) -> None:
        """Pass over the next element if it has this tag: it is optional."""
        if self.tag == tag:
            self.take(tag)


def _hexadecimal(integer: bytes) -> str:
    """Return a serial number as ``openssl x509 -serial`` does."""
    number = int.from_bytes(integer, signed=True)
    digits = f"{abs(number):X}"
    return "-" * (number < 0) + "0" * (len(digits) % 2) + digits


def _time(reader: _Reader) -> datetime:
    """Take a time, in UTC and with seconds (RFC 5280, section 4.1.2.5)."""
    tag = reader.tag
    text = reader.take(tag).decode("ascii")
    if tag == _UTC_TIME:  # of 1950 to 2049
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError(f"tag {tag} where a time was expected")
    if not re.fullmatch("[0-9]{14}Z", text):
        raise ValueError(f"a time that is not UTC with seconds: {text}")
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC)


def _name(der: bytes) -> str:
    """Return a distinguished name as text, its last part first (RFC 4514, section 2)."""
    if len(der) > _MAX_NAME:
        raise ValueError("a name that is too long")
    names, parts = _Reader(der), []
    while names.tag is not None:
        relative, attributes = _Reader(names.take(_SET)), []
        while relative.tag is not None:
            attribute = _Reader(relative.take(_SEQUENCE))
            kind = _object_identifier(attribute.take(_OID))
            tag = attribute.tag
            value = _value(tag, attribute.take(tag))
            attributes.append(f"{_NAMES.get(kind, kind)}={value}")
        parts.append("+".join(reversed(attributes)))  # as openssl does; they have no order
    return ",".join(reversed(parts))


def _value(tag: int | None, value: bytes) -> str:
    """Return an attribute's value as text; as hexadecimal digits if it is no text."""
    try:
        text = value.decode(_TEXT[tag or 0])
    except (KeyError, UnicodeDecodeError):
        return f"#{value.hex()}"
    return _SPECIAL.sub(r"\\\g<0>", text)


def _object_identifier(der: bytes) -> str:
    """Return an object identifier in numbers and dots (X.690, section 8.19)."""
    if len(der) > _MAX_OID:
        raise ValueError("an object identifier that is too long")
    numbers, number = [], 0
    for byte in der:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    if not numbers or der[-1] & 0x80:
        raise ValueError("an object identifier without an end")
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))
