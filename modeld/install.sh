#!/bin/sh
# Installs into a folder, /data/tinydrive if none is named: sh install.sh [FOLDER]
# Needs Python for aarch64 and no network; PYTHON=... chooses one. Delete the folder to go back.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
target=${1:-/data/tinydrive}
python=$(command -v "${PYTHON:-python3}") || {
    echo "install: there is no ${PYTHON:-python3}; set PYTHON to the path of one" >&2
    exit 1
}
found=$("$python" -c 'import platform, sys
print(platform.machine(), "cp%d%d" % sys.version_info[:2])')
set -- "$here"/wheels/*-"${found#* }"-*.whl
if [ "${found% *}" != aarch64 ] || [ ! -e "$1" ]; then
    echo "install: the wheels here are for other machines than $python ($found):" \
        "$(cd "$here/wheels" && echo numpy*)" >&2
    exit 1
fi

rm -rf "$target/site" "$target/bin"
mkdir -p "$target/site" "$target/bin" "$target/models"
for wheel in "$@" "$here"/wheels/*-none-any.whl; do
    "$python" -m zipfile -e "$wheel" "$target/site"
done
cp -R "$here"/packages/* "$target/site"
cp "$here"/models/*.tnn "$target/models"

launcher() {
    cat >"$target/bin/$1" <<END
#!/bin/sh
export TINYDRIVE_HOME="$target" PYTHONPATH="$target/site"
exec "$python" -m $2 "\$@"
END
    chmod 755 "$target/bin/$1"
}
launcher modeld modeld
launcher dmonitoringmodeld modeld.dmonitoring
launcher bus messaging
launcher tinynn tinynn

for model in "$target"/models/*.tnn; do
    "$target/bin/tinynn" trust "$model"
done
echo "install: done; try: $target/bin/tinynn verify $model"
