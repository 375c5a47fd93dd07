#!/usr/bin/env bash
# Builds the Python package into an environment of its own, and runs all its tests.
#
#   bindings/python/test.sh [--release] [PYTEST ARGUMENT]...
#   bindings/python/test.sh --bench [--quick]     measures with bench.py instead, built with the profile `release`
#
# Without --release it is built with the profile `dev`, of which the tests of the workspace have built
# the better part before: the optimised build takes ten times as long, and shows the same. PYTHON names
# another interpreter (3.10 or newer); MACHINA_BINARY and MACHINA_FIXTURE programs that are built already.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
profile=dev bench=no programs=debug
case ${1:-} in
    --release) profile=release && shift ;;
    --bench) profile=release bench=yes programs=release && shift ;;
esac
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "bindings/python/test.sh: $("$python" --version) is too old: set PYTHON to 3.10 or newer" >&2
    exit 1
}
place=$(cargo metadata --no-deps --format-version 1 | "$python" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
environment=$place/python/$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wheels=$place/python/wheels-$profile

if [[ -z ${MACHINA_BINARY:-} || -z ${MACHINA_FIXTURE:-} ]]; then
    cargo build --profile "${programs/debug/dev}" -p machina-http --bin machina -p machina-tests --bin machina-fixture
    export MACHINA_BINARY=$place/$programs/machina MACHINA_FIXTURE=$place/$programs/machina-fixture
fi

[[ -x $environment/bin/python ]] || "$python" -m venv "$environment"
pip=("$environment/bin/python" -m pip --disable-pip-version-check --quiet)
rm -rf "$wheels"
MATURIN_PEP517_ARGS="--profile $profile" "${pip[@]}" wheel --no-deps --wheel-dir "$wheels" ./bindings/python
wheel=$(echo "$wheels"/machina-*.whl)
"${pip[@]}" install "machina[test] @ file://$wheel"
"${pip[@]}" install --force-reinstall --no-deps "$wheel"
extension=$("$environment/bin/python" -c 'import machina._machina as native; print(native.__file__)')

code=0
if [[ $bench == yes ]]; then
    "$environment/bin/python" bindings/python/bench.py "$@" || code=$?
else
    # With a PostgreSQL and a Redis of their own, unless the environment names some.
    "$python" tests/backing/run.py -- "$environment/bin/python" -m pytest -p no:cacheprovider \
        --rootdir bindings/python -q "${@:-bindings/python/tests}" || code=$?
fi
printf '%s (%s): %s is %d KiB, its extension %d KiB\n' "$("$environment/bin/python" --version)" "$profile" \
    "${wheel##*/}" "$(($(stat -c %s "$wheel") / 1024))" "$(($(stat -c %s "$extension") / 1024))"
exit "$code"
