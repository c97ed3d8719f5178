"""PROXY headers for hypothesis: valid ones, and damaged ones."""

import proxy_headers as headers
from hypothesis import strategies as st

HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PORTS = st.integers(0, 65535)
TLVS = st.lists(st.builds(headers.tlv, st.sampled_from([1, 2, 4, 5, 0x20]), st.binary(max_size=9)))
VALID = st.one_of(
    st.builds(headers.line, HOSTS, PORTS),
    st.builds(lambda host, port, tlvs: headers.addressed(host, port, *tlvs), HOSTS, PORTS, TLVS),
    st.builds(lambda host, port, tlvs: headers.checked(host, port, *tlvs), HOSTS, PORTS, TLVS),
    st.builds(headers.block, st.binary(max_size=20), st.just(headers.LOCAL)),
    st.just(b"PROXY UNKNOWN\r\n"),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a header with a few bytes inserted, removed or replaced."""
    header = draw(VALID)
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(header)))
        end = draw(st.integers(begin, min(len(header), begin + 3)))
        header = header[:begin] + draw(st.binary(max_size=3)) + header[end:]
    return header
