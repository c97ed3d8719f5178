#!/bin/sh
# Make the certificates and keys of the unit tests, which may not start openssl themselves.
# They are valid for a hundred years, and protect nothing.
set -eu
cd "$(dirname "$0")"
days="-days 36500"
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ca_key=$work/ca.key

# shellcheck disable=SC2086  # the options are words
{
  openssl req -x509 $days $key -keyout "$ca_key" -out ca.pem -subj /CN=ca \
    -addext keyUsage=critical,keyCertSign,cRLSign
  for name in server client revoked; do
    openssl req -x509 $days $key -keyout $name.key -out $name.pem -subj /CN=$name \
      -CA ca.pem -CAkey "$ca_key" -addext subjectAltName=DNS:localhost \
      -addext basicConstraints=critical,CA:FALSE
  done
  # A certificate that the authority has not signed, a key that is too short, an encrypted key.
  openssl req -x509 $days $key -keyout other.key -out other.pem -subj /CN=localhost
  openssl req -x509 $days -newkey rsa:1024 -noenc -keyout weak.key -out weak.pem -subj /CN=weak
  openssl ec -in server.key -aes256 -passout pass:x -out locked.key
  # The authority's revocation list, which has the certificate "revoked".
  printf '%s\n' '[ca]' 'default_ca = a' '[a]' "database = $work/index" "crlnumber = $work/number" \
    'default_md = sha256' >"$work/config"
  : >"$work/index"
  echo 01 >"$work/number"
  openssl ca -config "$work/config" -cert ca.pem -keyfile "$ca_key" -revoke revoked.pem
  openssl ca -config "$work/config" -cert ca.pem -keyfile "$ca_key" -gencrl -crldays 36500 \
    -out crl.pem
}
