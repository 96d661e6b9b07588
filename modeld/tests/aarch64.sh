#!/bin/sh
# Makes what the emulated tests need, without root, on Debian 12 or a relative of it: a Python for
# aarch64 from Debian's packages, unpacked, and the wheels of what the daemons need.
#   sh modeld/tests/aarch64.sh [FOLDER]     default ~/.cache/tinydrive/aarch64; the tests look
#                                           there or in $TINYDRIVE_AARCH64
set -eu
project=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
folder=${1:-$HOME/.cache/tinydrive/aarch64}
mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/debs" \
    "$folder/root" "$folder/wheels"
cd "$folder/debs"
touch ../apt/status
apt() {
    apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 \
        -o Dir::State::Lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" \
        -o Dir::State::status="$folder/apt/status" "$@"
}
apt update
apt download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libstdc++6 \
    libgcc-s1 zlib1g libexpat1 libffi8 libssl3 libbz2-1.0 liblzma5 libuuid1 libcrypt1
for package in *.deb; do
    dpkg -x "$package" "$folder/root"
done
cd "$project"
"${PYTHON:-python3}" -c 'import sys; from pathlib import Path; from modeld import bundle
bundle.download_wheels(Path(sys.argv[1]), ["3.11"])' "$folder/wheels"
