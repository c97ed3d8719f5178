"""Certificates and revocation lists: names, serial numbers and dates, whatever the bytes."""

import ssl
from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import STORED
from hypothesis import given
from hypothesis import strategies as st

from calcd.core.x509 import (
    Certificate,
    RevocationList,
    read_certificate,
    read_pem,
    read_revocation_list,
)

UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
UTF8, PRINTABLE, T61, IA5, BMP, UNIVERSAL = 0x0C, 0x13, 0x14, 0x16, 0x1E, 0x1C
COMMON_NAME = b"\x55\x04\x03"
ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
DECADE = b"".join(
    bytes((UTC_TIME, len(text))) + text for text in (b"260131235959Z", b"360131235959Z")
)


def element(tag: int, *contents: bytes) -> bytes:
    """Encode an element of DER."""
    body = b"".join(contents)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(size))) + size + body


def attribute(value: bytes, tag: int = UTF8, kind: bytes = COMMON_NAME) -> bytes:
    return element(0x30, element(0x06, kind), element(tag, value))


def name(*relative: bytes) -> bytes:
    """Encode a name of parts that have one attribute each, or are sets already."""
    sets = (each if each[0] == 0x31 else element(0x31, each) for each in relative)
    return element(0x30, *sets)


def certificate(
    subject: bytes = b"\x30\0", serial: bytes = b"\1", validity: bytes = DECADE
) -> bytes:
    version = element(0xA0, element(0x02, b"\2"))
    fields = (element(0x02, serial), ALGORITHM, name(attribute(b"ca")))
    body = element(0x30, version, *fields, element(0x30, validity), subject, b"\x30\0")
    return element(0x30, body, ALGORITHM, element(0x03, b"\0"))


def moment(text: bytes, tag: int) -> datetime:
    """Read a certificate that begins and ends at a time; return that."""
    read = read_certificate(certificate(validity=2 * element(tag, text)))
    assert read.begin == read.end
    return read.begin


# What is right


@pytest.mark.parametrize("stem", ["ca", "server", "client", "other", "weak"])
def test_a_certificate_is_read_as_openssl_reads_it(stem: str) -> None:
    path = STORED / f"{stem}.pem"
    (read,) = read_pem(path.read_bytes())
    expected: dict[str, Any] = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    assert isinstance(read, Certificate)
    assert read.subject == f"CN={expected['subject'][0][0][1]}"
    assert read.issuer == f"CN={expected['issuer'][0][0][1]}"
    assert read.serial == expected["serialNumber"]
    assert read.begin.timestamp() == ssl.cert_time_to_seconds(expected["notBefore"])
    assert read.end.timestamp() == ssl.cert_time_to_seconds(expected["notAfter"])


def test_a_revocation_list_is_read() -> None:
    (read,) = read_pem((STORED / "crl.pem").read_bytes())
    assert isinstance(read, RevocationList)
    assert read.issuer == "CN=ca"
    assert read.end
    assert read.end - read.begin == timedelta(days=36500)


def revocation_list(*fields: bytes) -> bytes:
    return element(0x30, element(0x30, *fields), ALGORITHM, element(0x03, b"\0"))


@pytest.mark.parametrize("version", [b"", element(0x02, b"\1")])
def test_a_revocation_list_need_not_say_its_version_and_when_the_next_is_due(
    version: bytes,
) -> None:
    begin = element(GENERALIZED_TIME, b"20260131000000Z")
    fields = (version, ALGORITHM, name(attribute(b"ca")), begin)
    revoked = element(0x30, element(0x30, element(0x02, b"\1"), begin))
    for rest in (), (revoked,), (element(0xA0, b"\x30\0"),):
        read = read_revocation_list(revocation_list(*fields, *rest))
        assert read == RevocationList("CN=ca", datetime(2026, 1, 31, tzinfo=UTC), None)
    end = element(UTC_TIME, b"260201000000Z")
    read = read_revocation_list(revocation_list(*fields, end, revoked))
    assert read.end == datetime(2026, 2, 1, tzinfo=UTC)


def test_a_certificate_of_the_first_version_is_read() -> None:
    body = (element(0x02, b"\5"), ALGORITHM, name(attribute(b"ca")), element(0x30, DECADE))
    read = read_certificate(element(0x30, element(0x30, *body, b"\x30\0")))
    assert (read.serial, read.issuer, read.subject) == ("05", "CN=ca", "")


@pytest.mark.parametrize(
    ("text", "tag", "expected"),
    [
        (b"491231235959Z", UTC_TIME, (2049, 12, 31, 23, 59, 59)),
        (b"500101000000Z", UTC_TIME, (1950, 1, 1, 0, 0, 0)),
        (b"20500102030405Z", GENERALIZED_TIME, (2050, 1, 2, 3, 4, 5)),
        (b"99991231235959Z", GENERALIZED_TIME, (9999, 12, 31, 23, 59, 59)),
    ],
)
def test_times_have_two_digits_of_the_year_or_four(
    text: bytes, tag: int, expected: tuple[int, int, int, int, int, int]
) -> None:
    assert moment(text, tag) == datetime(*expected, tzinfo=UTC)


@pytest.mark.parametrize(
    ("serial", "shown"),
    [
        (b"\0", "00"),
        (b"\1", "01"),
        (b"\0\xff", "FF"),
        (b"\x0a\xbc", "0ABC"),
        (b"\xff", "-01"),
        (bytes(range(1, 21)), "0102030405060708090A0B0C0D0E0F1011121314"),
    ],
)
def test_a_serial_number_is_shown_as_openssl_does(serial: bytes, shown: str) -> None:
    assert read_certificate(certificate(serial=serial)).serial == shown


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (name(), ""),
        (name(attribute(b"a")), "CN=a"),
        (name(attribute(b"DE", PRINTABLE, b"\x55\x04\x06"), attribute(b"a")), "CN=a,C=DE"),
        (
            name(element(0x31, attribute(b"a"), attribute(b"b", kind=b"\x55\x04\x0b"))),
            "OU=b+CN=a",
        ),
        (name(attribute(b"a@b", IA5, bytes.fromhex("2a864886f70d010901"))), "emailAddress=a@b"),
        (name(attribute(b"a", kind=bytes.fromhex("0992268993f22c640119"))), "DC=a"),
        (name(attribute(b"x", kind=bytes.fromhex("2b0601040182371401"))), "1.3.6.1.4.1.311.20.1=x"),
        (name(attribute(b"x", kind=b"\x88\x37")), "2.999=x"),
        (name(attribute("Zoë €".encode())), "CN=Zoë €"),
        (name(attribute("Zoë €".encode("utf-16-be"), BMP)), "CN=Zoë €"),
        (name(attribute("Zoë €".encode("utf-32-be"), UNIVERSAL)), "CN=Zoë €"),
        (name(attribute("Zoë".encode("latin-1"), T61)), "CN=Zoë"),
        (name(attribute(b'a,b+c"d\\e<f>g;h')), r"CN=a\,b\+c\"d\\e\<f\>g\;h"),
        (name(attribute(b" # ")), r"CN=\ #\ "),
        (name(attribute(b"#1")), r"CN=\#1"),
        (name(attribute(b"\xff")), "CN=#ff"),
        (name(attribute(b"\xff", IA5)), "CN=#ff"),
        (name(attribute(b"\1", 0x02)), "CN=#01"),
    ],
)
def test_names_are_written_as_rfc_4514_does(subject: bytes, shown: str) -> None:
    assert read_certificate(certificate(subject)).subject == shown


def test_a_name_has_at_most_1024_bytes() -> None:
    longest = attribute(1007 * b"x")
    assert len(name(longest)) == 4 + 1024
    assert read_certificate(certificate(name(longest))).subject == "CN=" + 1007 * "x"
    with pytest.raises(ValueError, match="too long"):
        read_certificate(certificate(name(attribute(1008 * b"x"))))


def test_long_lengths_are_read() -> None:
    for size in 127, 128, 255, 256, 70_000:
        read = read_certificate(certificate(name(attribute(b"a")), serial=size * b"\1"))
        assert (read.serial, read.subject) == (size * "01", "CN=a")


# Files


def pem(label: str, der: bytes) -> bytes:
    body = encodebytes(der)
    return f"-----BEGIN {label}-----\n".encode() + body + f"-----END {label}-----\n".encode()


def test_a_file_has_several_with_text_between_them() -> None:
    ca, crl = (Path(STORED, f"{stem}.pem").read_bytes() for stem in ("ca", "crl"))
    key = Path(STORED, "server.key").read_bytes()
    kinds = [type(each) for each in read_pem(b"words\n" + ca + key + b"more\n" + crl + ca)]
    assert kinds == [Certificate, RevocationList, Certificate]
    assert list(read_pem(key)) == []
    assert list(read_pem(b"")) == []


def test_labels_that_openssl_takes_are_taken() -> None:
    der = certificate()
    for label in "CERTIFICATE", "X509 CERTIFICATE":
        assert list(read_pem(pem(label, der))) == [read_certificate(der)]
    # It is followed by what it is trusted for.
    assert list(read_pem(pem("TRUSTED CERTIFICATE", der + b"\x30\0"))) == [read_certificate(der)]
    assert list(read_pem(pem("CERTIFICATE REQUEST", der))) == []
    assert list(read_pem(pem("CERTIFICATE", der).replace(b"\n", b"\r\n"))) == [
        read_certificate(der)
    ]


def test_a_part_that_is_broken_does_not_hide_the_others() -> None:
    good = pem("CERTIFICATE", certificate())
    for broken in (
        pem("CERTIFICATE", certificate()[:50]),
        pem("CERTIFICATE", b""),
        pem("X509 CRL", certificate()),
        b"-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n",
    ):
        assert list(read_pem(broken + good)) == [None, read_certificate(certificate())]
    cut = good.removesuffix(b"-----END CERTIFICATE-----\n")
    assert list(read_pem(cut)) == []
    assert list(read_pem(cut + b"-----END X509 CRL-----\n" + good)) == [
        read_certificate(certificate())
    ]


# What is wrong


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (b"2601312359Z", UTC_TIME),
        (b"260131235959+0100", UTC_TIME),
        (b"20260131235959.5Z", GENERALIZED_TIME),
        (b"20260131235959", GENERALIZED_TIME),
        (b"20260230000000Z", GENERALIZED_TIME),
        (b"00000101000000Z", GENERALIZED_TIME),
        ("2026013123595٣Z".encode(), GENERALIZED_TIME),
        (b"20260131235959Z", 0x16),
        (b"", UTC_TIME),
    ],
)
def test_a_time_that_rfc_5280_forbids_is_an_error(text: bytes, tag: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (its words are for nobody)
        moment(text, tag)


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80\0\0",
        b"\x30\x85\0\0\0\0\0",
        b"\x30\x82\1",
        b"\x30\x05\x30",
        b"\x31\0",
        certificate(name(attribute(b"x", kind=b"\x88"))),
        certificate(name(attribute(b"x", kind=b""))),
        certificate(name(attribute(b"x", kind=100 * b"\x88" + b"\1"))),
        certificate(name(element(0x31, element(0x30, element(0x06, COMMON_NAME))))),
    ],
)
def test_what_is_no_certificate_is_an_error(der: bytes) -> None:
    for read in read_certificate, read_revocation_list:
        with pytest.raises(ValueError):  # noqa: PT011
            read(der)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_are_an_error(der: bytes) -> None:
    for text in der, element(0x30, element(0x30, der)):
        for read in read_certificate, read_revocation_list:
            try:
                read(text)
            except ValueError:
                continue
    list(read_pem(der))


@given(st.data())
def test_a_certificate_that_was_changed_anywhere_is_read_or_is_an_error(
    data: st.DataObject,
) -> None:
    der = bytearray(certificate(name(attribute(b"a"), attribute(b"b", BMP))))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_certificate(bytes(der[: data.draw(st.integers(1, len(der)))]))
    except ValueError:
        return
