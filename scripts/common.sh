# Sourced by the scripts beside it: goes to the project, and sees to it that .venv is there.
set -eu
cd "$(dirname "$0")/.."
# Images set this; then each command would compile the three hundred modules that it imports anew.
unset PYTHONDONTWRITEBYTECODE

setup() { # run|test
    python="${PYTHON:-}"
    if [ -z "$python" ]; then
        for python in python3.11 python3; do
            command -v "$python" >/dev/null 2>&1 && break
        done
    fi
    command -v "$python" >/dev/null 2>&1 || {
        echo "Python 3.11 is missing. Install the Debian packages python3 and python3-venv." >&2
        exit 1
    }
    "$python" -E scripts/setup.py "$1"
}
