#!/usr/bin/env bash
# Builds the addon, checks that what is generated is current, and runs every test of the package.
#
#   bindings/node/test.sh              all of it
#   bindings/node/test.sh --generate   writes native.js and native.d.ts anew instead of comparing them
#   bindings/node/test.sh --bench      measures with bench.mjs instead, built with release
#
# MACHINA_PROFILE names the profile that cargo builds with: dev by default, which takes a minute where the tests of
# the workspace have been built; what is shipped is built with release and stripped, which takes many. MACHINA_BINARY
# and MACHINA_FIXTURE may name programs that are built already.
set -euo pipefail

generate=no bench=no
case ${1:-} in
    "") ;;
    --generate) generate=yes ;;
    --bench) bench=yes ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "test.sh: unknown option $1" >&2 && exit 2 ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")"
workspace=$(cd ../.. && pwd)
default=dev
[[ $bench == no ]] || default=release
export MACHINA_PROFILE=${MACHINA_PROFILE:-$default}
export npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false

finish() {
    local code=$?
    [[ -z ${scratch:-} ]] || rm -rf "$scratch"
    if ((code == 0)); then
        printf '\nnode binding: all done in %d s\n' "$SECONDS"
    else
        printf '\nnode binding: FAILED in: %s (exit code %d) after %d s\n' "$stage" "$code" "$SECONDS"
    fi
}
trap finish EXIT

heading() {
    stage=$1
    printf '\n--- node binding: %s (at %d s)\n' "$stage" "$SECONDS"
}

locked=()
if [[ -n ${CI:-} ]]; then
    locked=(--locked)
fi

# What needs the network fails at times.
online() { # COMMAND [ARGUMENT ...]
    local pause
    for pause in 5 20; do
        "$@" && return
        sleep "$pause"
    done
    "$@"
}

heading "tools"
scratch=$(mktemp -d)
# Not `npm ci`, which wants the addresses of optional packages for other platforms in the lock file.
online npm install --no-save --ignore-scripts --loglevel=error
online npm ci --prefix ../../examples/mcp_host --ignore-scripts --loglevel=error

heading "npm install of the package ($MACHINA_PROFILE)"
# The macros append what they export to a file there, whenever the crate is compiled.
export NAPI_TYPE_DEF_TMP_FOLDER=$scratch/definitions
mkdir "$NAPI_TYPE_DEF_TMP_FOLDER" "$scratch/generated" "$scratch/project"
(cd "$scratch/project" && npm init -y >/dev/null && npm install --foreground-scripts --loglevel=error "$workspace/bindings/node")
cp ../../examples/quickstart.mjs "$scratch/project"
(cd "$scratch/project" && node quickstart.mjs) | diff - ../../examples/quickstart.txt
echo "it installs, and examples/quickstart.mjs prints examples/quickstart.txt"

if [[ $bench == no ]]; then
    heading "what is generated"
    node generate.mjs "$NAPI_TYPE_DEF_TMP_FOLDER" "$scratch/generated"
    for file in native.js native.d.ts; do
        if [[ $generate == yes ]]; then
            cp "$scratch/generated/$file" "$file"
        elif ! diff -u "$file" "$scratch/generated/$file"; then
            echo "$file is not what the addon's source says: run bindings/node/test.sh --generate" >&2
            exit 1
        fi
    done
    echo "native.js and native.d.ts are current"

    heading "types"
    npx --no-install tsc -p .
    npm run --prefix ../../examples/mcp_host --silent build
    echo "types are as they are used"
fi

heading "programs"
if [[ -z ${MACHINA_BINARY:-} || -z ${MACHINA_FIXTURE:-} ]]; then
    profile=dev built=debug
    [[ $bench == no ]] || profile=release built=release
    (cd "$workspace" && cargo build --profile "$profile" ${locked[@]+"${locked[@]}"} -p machina-http --bin machina -p machina-tests --bin machina-fixture)
    target=$(cd "$workspace" && cargo metadata --format-version 1 --no-deps | node -p 'JSON.parse(fs.readFileSync(0, "utf8")).target_directory')
    export MACHINA_BINARY=$target/$built/machina MACHINA_FIXTURE=$target/$built/machina-fixture
fi
ls "$MACHINA_BINARY" "$MACHINA_FIXTURE"

if [[ $bench == yes ]]; then
    heading "figures"
    node --expose-gc bench.mjs
else
    heading "tests, with a PostgreSQL and a Redis of their own"
    python3 "$workspace/tests/backing/run.py" -- node --test --test-timeout=300000 --test-reporter=spec test/*.test.mjs
fi

heading "size"
for addon in ./*.node; do
    printf "%s: %s bytes (%s)\n" "$addon" "$(stat -c %s "$addon" 2>/dev/null || stat -f %z "$addon")" "$MACHINA_PROFILE"
done
