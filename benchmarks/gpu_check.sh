#!/usr/bin/env bash
# Check the library on one GPU, unattended, on a machine without a network that has torch installed.
#
#   benchmarks/gpu_check.sh prepare [PYTHON_VERSION]   build and download the wheels, where there is a network
#   benchmarks/gpu_check.sh run [--device cpu] [ITEM ...]   install them and run the checks, in 6 minutes at most
#
# Wheels are kept in benchmarks/gpu_check/wheels, without torch. Run "prepare" again after each change of the package.
# The machine needs the system, architecture, and Python version of the one that prepared the wheels.
#
# Each check prints one line: "pass", "FAIL", or "not measured" with the reason, such as "(no GPU)" for what a CPU cannot
# show. The exit status is 0 if all checks passed, 1 if one failed, 2 after wrong usage, and 3 if none failed but some
# were not measured. With "--device cpu", the checks run on the CPU, and the exit status is 0 instead of 3.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
wheels=$root/benchmarks/gpu_check/wheels
python=${PYTHON:-python3}
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=2 # errors only

prepare() {
    local new=$wheels.new
    rm -rf "$new"
    mkdir -p "$new"
    "$python" -m pip wheel --no-deps --wheel-dir "$new" "$root"
    "$python" "$root/benchmarks/gpu_check/list_requirements.py" "$new"/pte_tracking-*.whl >"$new/requirements.txt"
    "$python" -m pip download --only-binary=:all: --dest "$new" --requirement "$new/requirements.txt" \
        ${1:+--python-version "$1"}
    rm -rf "$wheels"
    mv "$new" "$wheels"
    echo "$(find "$wheels" -name '*.whl' | wc -l) wheels, $(du -sh "$wheels" | cut -f1), in $wheels"
}

run() {
    if ! compgen -G "$wheels/pte_tracking-*.whl" >/dev/null; then
        echo "No wheels in $wheels. Run this script with 'prepare' where there is a network." >&2
        exit 2
    fi
    folder=$(mktemp -d)
    trap 'rm -rf "$folder" || rm -rf "$folder" || true' EXIT # a delivery process that is ending may still write to it
    mkdir "$folder/tmp"
    export TMPDIR=$folder/tmp # what a check leaves that was stopped at its time limit
    install "$folder" || { echo "FAIL  installation without a network ($SECONDS s)" && exit 1; }
    echo "pass  installation without a network ($SECONDS s)"
    cd "$folder" # so that the installed package is checked, and not the source tree
    "$folder/venv/bin/python" "$root/benchmarks/gpu_check" --seconds $((350 - SECONDS)) "$@"
}

# Install the package and its dependencies in a virtual environment in a folder.
install() {
    local environment=$1/venv
    "$python" -m venv --system-site-packages "$environment" || return
    # torch may be installed in an environment of its own, which the new one does not see.
    local packages
    packages=$("$environment/bin/python" -c "import sysconfig; print(sysconfig.get_path('purelib'))") || return
    "$python" -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" >"$packages/torch.pth" || return
    # In any case the package of the wheel, because that environment may contain another version.
    local pip=(timeout 90 "$environment/bin/python" -m pip --isolated install --quiet --no-compile --no-index)
    pip+=(--find-links "$wheels")
    "${pip[@]}" --no-deps --ignore-installed "$wheels"/pte_tracking-*.whl || return
    "${pip[@]}" "pte-tracking[tensorboard]"
}

case ${1:-} in
prepare) prepare "${@:2}" ;;
run) run "${@:2}" ;;
*)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
