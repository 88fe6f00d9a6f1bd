#!/usr/bin/env bash
# Runs the test stages named on the command line, or all of them: `tests/run.sh cargo-test phpt`.
#
# Each stage says that it starts and how it ended; a stage that fails does not stop the others. The output of
# each is kept in build/logs, what it left to look at (screenshots) in build/artifacts. The last line counts
# the single tests of all stages.
set -uo pipefail
cd "$(dirname "$0")/.."

ALL=(format licences lint cargo-test loom miri fuzz build phpt valgrind readme library browser protocols servers autobahn faults hostile soak bench)
# These load the extension: without it they have nothing to say.
LOADING=(phpt valgrind readme library browser protocols servers autobahn faults hostile soak bench)
export PHP=${PHP:-php}
export REALTIME_SO=$PWD/modules/realtime.so
export ARTIFACTS=$PWD/build/artifacts

passed=0 failed=0 skipped=0 broken=()

stage_format() { cargo fmt --check && cargo fmt --check --manifest-path tests/fuzz/Cargo.toml; }

stage_lint() {
    cargo clippy --locked --all-targets -- -D warnings &&
        cargo clippy --locked --features php --lib -- -D warnings &&
        cargo clippy --locked --features loom --lib --tests -- -D warnings
}

stage_licences() {
    cargo metadata --format-version 1 --locked --features php --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
        "$PHP" -n tests/licences.php
}

# What clients see is the same over TLS: those tests run a second time inside it.
stage_cargo_test() {
    cargo test --locked &&
        REALTIME_TEST_TLS=1 cargo test --locked --test server -- \
            native:: websocket:: frames:: deflate:: sse:: stream:: long_poll:: resume::
}

# Every order in which threads can meet, up to three switches more than they must.
stage_loom() { LOOM_MAX_PREEMPTIONS=3 cargo test --locked --features loom --lib meetings; }

# What is unsafe and calls no C, in an interpreter that sees undefined behaviour and races.
stage_miri() {
    tests/setup.sh miri || { echo "skipped: miri, which comes with a nightly Rust, is not to be had here"; return 0; }
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --locked --lib -- store::ring
}

stage_fuzz() { tests/fuzz/run.sh; }

stage_build() { make --no-print-directory; }

stage_phpt() {
    local php status
    prepare_phpt || return
    php=$(command -v "$PHP")
    NO_INTERACTION=1 "$php" -n build/run-tests.php -p "$php" -n -q -j2 -d extension_dir="$PWD/build/extensions" \
        --no-color --show-diff -g FAIL,LEAK,WARN,BORK --no-progress tests/phpt
    status=$?
    find tests/phpt \( -name '*.diff' -o -name '*.out' \) -exec cp -t "$ARTIFACTS" {} +
    return $status
}

stage_valgrind() { prepare_phpt && tests/valgrind/run.sh; }

# Puts run-tests.php, as it is from PHP's own -dev package, and a directory of extensions into build. The directory has ours
# and PHP's shared ones, since run-tests.php knows one directory for all that a test's --EXTENSIONS-- names.
prepare_phpt() {
    local config extensions=$PWD/build/extensions file lib
    config=$(tests/setup.sh php-config)
    rm -rf "$extensions" && mkdir -p "$extensions"
    for file in "$("$config" --extension-dir)"/*.so "$REALTIME_SO"; do
        ln -sf "$file" "$extensions/"
    done
    # Debian has a directory for each API version, a PHP built from source has one.
    lib=$("$config" --prefix)/lib/php
    cp "$lib/$("$config" --phpapi)/build/run-tests.php" build/run-tests.php 2>/dev/null ||
        cp "$lib/build/run-tests.php" build/run-tests.php
}

stage_readme() { "$PHP" -n tests/readme/run.php; }

stage_library() { "$PHP" -n tests/library/run.php; }

stage_browser() { npm test --prefix tests/browser; }

stage_protocols() { npm test --prefix tests/protocols; }

stage_servers() { npm test --prefix tests/servers; }

stage_faults() {
    cargo bench --locked --bench faults -- --extension "$REALTIME_SO" --php "$(command -v "$PHP")"
}

stage_hostile() {
    cargo bench --locked --bench hostile -- --extension "$REALTIME_SO" --php "$(command -v "$PHP")"
}

# In short; `make soak` takes its time.
stage_soak() {
    cargo bench --locked --bench soak -- --extension "$REALTIME_SO" --php "$(command -v "$PHP")" \
        --clients "${SOAK_CLIENTS:-1500}" --seconds "${SOAK_SECONDS:-80}"
}

stage_autobahn() { build/autobahn/bin/python tests/autobahn/run.py; }

stage_bench() {
    cargo bench --locked --bench fanout -- --quick --extension "$REALTIME_SO" --php "$(command -v "$PHP")"
}

# Prints "passed failed skipped" as the runner of the stage counted them, or nothing when it does not count.
count() {
    local log=$2
    case $1 in
        cargo-test | loom)
            sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' "$log" | sum ;;
        miri)
            sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p; s/^skipped: .*/0 0 1/p' "$log" | sum ;;
        phpt | valgrind)
            awk '/^Tests passed +:/ { p = $4 }
                 /^Tests (failed|warned|leaked|borked) +:/ { f += $4 }
                 /^Tests skipped +:/ { s = $4 }
                 END { print p + 0, f + 0, s + 0 }' "$log" ;;
        readme | library | faults | hostile | soak | autobahn | fuzz)
            sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2 0/p' "$log" | sum ;;
        browser | protocols | servers)
            # node --test, in its own words and in TAP's.
            awk '/^(#|ℹ) pass / { p += $3 } /^(#|ℹ) (fail|cancelled) / { f += $3 } /^(#|ℹ) skipped / { s += $3 }
                 END { print p + 0, f + 0, s + 0 }' "$log" ;;
    esac
}

sum() { awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }'; }

run_stage() {
    local name=$1 log=build/logs/$1.log status p f s start=$SECONDS
    printf '\n==== %s\n' "$name"
    "stage_${name//-/_}" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    read -r p f s < <(count "$name" "$log") || { p=$((status == 0)) f=$((status != 0)) s=0; }
    # Only miri's may be skipped as a whole.
    if [ "$status" -eq 0 ] && [ "$p" -eq 0 ] && ! { [ "$name" = miri ] && [ "$s" -gt 0 ]; }; then
        echo "$name: ran no test" | tee -a "$log"
        status=1
    fi
    # Whatever the counts say: a stage that failed is at least one failure, and one failure fails its stage.
    [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    [ "$f" -ne 0 ] && [ "$status" -eq 0 ] && status=1
    [ "$status" -ne 0 ] && broken+=("$name")
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '==== %s: %s (%d passed, %d failed, %d skipped; %d s)\n' \
        "$name" "$([ "$status" -eq 0 ] && echo ok || echo FAILED)" "$p" "$f" "$s" $((SECONDS - start))
    return "$status"
}

among() { local one=$1; shift; [[ " $* " == *" $one "* ]]; }

main() {
    local name built=''
    [ $# -gt 0 ] || set -- "${ALL[@]}"
    for name; do
        among "$name" "${ALL[@]}" || { echo "tests/run.sh: no stage is called $name; there are: ${ALL[*]}" >&2; exit 2; }
    done
    rm -rf build/logs build/artifacts
    mkdir -p build/logs build/artifacts
    tests/setup.sh test || exit
    PHP_CONFIG=$(tests/setup.sh php-config)
    PHP=$(command -v "$PHP")
    export PHP_CONFIG
    for name; do
        if among "$name" build "${LOADING[@]}" && [ -z "$built" ]; then
            run_stage build && built=yes || built=no
        fi
        if among "$name" "${LOADING[@]}" && [ "$built" = no ]; then
            printf '\n==== %s: not run, there is no extension\n' "$name"
        elif [ "$name" != build ]; then
            run_stage "$name"
        fi
    done
    echo
    [ ${#broken[@]} -eq 0 ] || echo "Failed: ${broken[*]}. The output of each is in build/logs."
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ "$failed" -eq 0 ]
}

main "$@"
