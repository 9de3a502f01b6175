# Sourced by scripts/demo and scripts/test: makes .venv at the top of the checkout and installs the package there.
# setup EXTRAS installs only when pyproject.toml, the constraints or the wanted extras have changed since the last time.

setup() {
    local extras=$1 python=${PYTHON:-} stamp wanted candidate
    if [ ! -x .venv/bin/python ]; then
        for candidate in $python python3 python3.13 python3.12 python3.11 python3.10; do
            if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
                python=$candidate
                break
            fi
            python=
        done
        if [ -z "$python" ]; then
            echo "Python 3.10 or later is needed: set PYTHON to one" >&2
            return 1
        fi
        "$python" -m venv .venv
    fi
    stamp=.venv/installed-${extras//,/-}
    wanted=$(cat pyproject.toml scripts/constraints.txt scripts/setup.sh | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing mps-spectro[$extras] into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            -c scripts/constraints.txt -e ".[$extras]"
        echo "$wanted" >"$stamp"
    fi
}
