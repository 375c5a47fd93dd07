#!/usr/bin/env bash
# Runs every test, after installing what they need. Ends at the first stage that fails.
#
#   scripts/test.sh          all of it
#   scripts/test.sh --fast   without installing fleet and peers (tests use what is there), bindings and docs
set -euo pipefail

usage() {
    sed -n '2,5s/^# \{0,1\}//p' "$0"
}

fast=no
for option in "$@"; do
    case $option in
        --fast) fast=yes ;;
        -h | --help) usage && exit 0 ;;
        *)
            echo "scripts/test.sh: unknown option $option" >&2
            usage >&2
            exit 2
            ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
stage=start

heading() {
    stage=$1
    printf '\n=== %s (at %d s) ===\n' "$stage" "$SECONDS"
}

finish() {
    local code=$?
    if ((code == 0)); then
        printf '\n=== all done in %d s ===\n' "$SECONDS"
    else
        printf '\n=== FAILED in: %s (exit code %d) after %d s ===\n' "$stage" "$code" "$SECONDS"
    fi
}
trap finish EXIT

need() { # COMMAND WHAT-TO-DO
    if ! command -v "$1" >/dev/null; then
        echo "$1 is missing: $2" >&2
        exit 1
    fi
}

# The bundled SQLite and the TLS library are compiled from C.
need_c_compiler() {
    local packages=()
    command -v cc >/dev/null || packages+=(gcc libc6-dev)
    command -v make >/dev/null || packages+=(make)
    command -v cmake >/dev/null || packages+=(cmake)
    if ((${#packages[@]} == 0)); then
        return
    fi
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "a C compiler, make and cmake are needed; missing here: ${packages[*]}" >&2
        exit 1
    fi
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"
}

heading "what this machine has"
need cargo "install Rust 1.94 or newer"
cargo --version
cargo fmt --version || { echo "run: rustup component add rustfmt" >&2; exit 1; }
cargo clippy --version || { echo "run: rustup component add clippy" >&2; exit 1; }
need_c_compiler
need python3 "install Python 3.10 or newer"
if [[ $fast == no ]]; then
    need npm "install Node.js 20 or newer, with npm"
    need git "install git"
    echo "$(python3 --version), node $(node --version), npm $(npm --version 2>/dev/null)"
fi

# In CI the committed Cargo.lock is what is tested; at home a changed manifest may update it.
locked=()
if [[ -n ${CI:-} ]]; then
    locked=(--locked)
fi

heading "format"
cargo fmt --all --check

if [[ $fast == no ]]; then
    heading "fleet of real MCP servers"
    python3 tests/fleet/install.py --ci
    python3 tests/fleet/test_install.py

    heading "conformance suites and clients by others"
    python3 tests/peers/install.py
    python3 tests/peers/test_install.py
fi

heading "clippy"
cargo clippy ${locked[@]+"${locked[@]}"} --workspace --all-targets -- -D warnings

heading "tests, with a PostgreSQL and a Redis of their own"
if [[ $fast == no ]]; then
    python3 tests/backing/test_run.py
fi
python3 tests/backing/run.py -- cargo test ${locked[@]+"${locked[@]}"} --workspace --no-fail-fast

if [[ $fast == no ]]; then
    # Both use the programs that the tests have built.
    target=$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    export MACHINA_BINARY=$target/debug/machina MACHINA_FIXTURE=$target/debug/machina-fixture

    heading "Python binding"
    bindings/python/test.sh

    heading "Node binding"
    bindings/node/test.sh

    heading "OpenAPI document, asked for thousands of times"
    python3 tests/openapi/install.py
    python3 tests/openapi/check.py

    heading "docs"
    RUSTDOCFLAGS="-D warnings" cargo doc ${locked[@]+"${locked[@]}"} --workspace --no-deps
fi
