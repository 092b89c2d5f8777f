#!/usr/bin/env bash
# Check the library on one GPU, unattended, on a machine without a network that has torch installed.
#
#   benchmarks/gpu_check.sh prepare [PYTHON_VERSION]   download the wheels, where there is a network (default: this Python)
#   benchmarks/gpu_check.sh run [--device cpu] [ITEM ...]   install them and run the checks, in 6 minutes at most
#
# Wheels are kept in benchmarks/gpu_check/wheels, without torch. The machine may differ from the one that prepared them,
# but needs the same system, architecture, and Python version. Each check prints "pass" or "FAIL". The exit status is 0
# if all checks pass, 1 if one fails, and 2 after wrong usage.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
wheels=$root/benchmarks/gpu_check/wheels
python=${PYTHON:-python3}
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

prepare() {
    rm -rf "$wheels"
    mkdir -p "$wheels"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$root"
    "$python" "$root/benchmarks/gpu_check/list_requirements.py" "$wheels"/pte_tracking-*.whl >"$wheels/requirements.txt"
    "$python" -m pip download --quiet --only-binary=:all: --dest "$wheels" --requirement "$wheels/requirements.txt" \
        ${1:+--python-version "$1"}
    echo "$(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$wheels" | cut -f1), in $wheels"
}

run() {
    if ! compgen -G "$wheels/pte_tracking-*.whl" >/dev/null; then
        echo "No wheels in $wheels. Run this script with 'prepare' where there is a network." >&2
        exit 2
    fi
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    "$python" -m venv --system-site-packages "$folder/venv"
    # torch may be installed in an environment of its own, which the new one does not see.
    "$python" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" |
        tee "$("$folder/venv/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))")/torch.pth" >/dev/null
    timeout 120 "$folder/venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels" \
        "pte-tracking[tensorboard]"
    echo "pass  installation without a network ($SECONDS s)"
    cd "$folder" # so that the installed package is checked, and not the source tree
    "$folder/venv/bin/python" "$root/benchmarks/gpu_check" --seconds $((350 - SECONDS)) "$@"
}

case ${1:-} in
prepare) prepare "${@:2}" ;;
run) run "${@:2}" ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
