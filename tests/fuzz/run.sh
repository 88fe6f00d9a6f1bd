#!/usr/bin/env bash
# Fuzzes every decoder that reads from a socket: `tests/fuzz/run.sh [TARGET ...]`, all of them when none is named.
#
# FUZZ_SECONDS (60) is for each; FUZZ_JOBS (4) run at a time. Begins with the inputs in corpus/TARGET and with what
# earlier runs have found (build/fuzz-corpus). A panic, an overflow, a leak, a hang, a huge allocation or a process that
# grows is a failure; its input is kept in build/artifacts, and `tests/fuzz/run.sh TARGET INPUT` runs that one alone.
# `tests/fuzz/run.sh --keep` puts a small set of inputs that reaches nearly as much into corpus/.
#
# Drives libFuzzer by itself, with the flags of cargo-fuzz: one tool less to install, and a stable compiler will do.
set -uo pipefail
cd "$(dirname "$0")/../.."

SECONDS_EACH=${FUZZ_SECONDS:-60}
JOBS=${FUZZ_JOBS:-4}
ARTIFACTS=${ARTIFACTS:-$PWD/build/artifacts}
LOGS=$PWD/build/fuzz-logs
# Inputs in corpus/ for each target, beside those made by hand.
KEPT=40
# One allocation, and the whole process; the targets bound what a decoder takes for its input much closer.
LIMITS=(-malloc_limit_mb=64 -rss_limit_mb=1024 -timeout=25 -max_len=8192)
# What is freed is held back for a while, to find uses of it. Not for long: it counts as memory of the process.
export ASAN_OPTIONS=quarantine_size_mb=16:detect_leaks=1
host=$(rustc -vV | sed -n 's/^host: //p')
binaries=$PWD/build/fuzz/$host/release

build() {
    local flags=(
        -Cpasses=sancov-module
        -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
        -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares
        -Zsanitizer=address
        --cfg=fuzzing
    )
    # A stable compiler has the sanitizer, and hides it. With --target the flags are not for build scripts.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=${flags[*]} "${CARGO:-cargo}" build --quiet --locked --release --bins --target "$host" \
        --manifest-path tests/fuzz/Cargo.toml --target-dir build/fuzz
}

targets() { sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' tests/fuzz/Cargo.toml; }

fuzz() {
    local target=$1 log=$LOGS/$1.log
    mkdir -p "build/fuzz-corpus/$target"
    if "$binaries/$target" "${LIMITS[@]}" -max_total_time="$SECONDS_EACH" -print_final_stats=1 \
        -artifact_prefix="$ARTIFACTS/fuzz-$target-" "build/fuzz-corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1
    then
        awk -v target="$target" '/^stat::number_of_executed_units/ { runs = $2 } /^stat::peak_rss_mb/ { rss = $2 }
            / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") covered = $(i + 1) }
            END { printf "ok      %-9s %9d inputs, %5d edges, %4d MB\n", target, runs, covered, rss }' "$log"
    else
        echo "FAILED  $target (the input is in $ARTIFACTS)"
        grep -vE '^(#[0-9]+|	NEW_FUNC|INFO:|stat::)' "$log" | head -n 40
        return 1
    fi
}

# Those with a name of their own stay: seeds made by hand, and what once failed.
keep() {
    local target fresh kept
    for target; do
        kept=tests/fuzz/corpus/$target fresh=$(mktemp -d)
        "$binaries/$target" "${LIMITS[@]}" -set_cover_merge=1 -use_counters=0 "$fresh" "build/fuzz-corpus/$target" "$kept" \
            >"$LOGS/$target.log" 2>&1 || { cat "$LOGS/$target.log"; return 1; }
        find "$kept" -type f -regextype egrep -regex '.*/[0-9a-f]{40}' -delete
        # The largest reach most.
        find "$fresh" -type f -printf '%s %p\n' | sort -rn | head -n "$KEPT" | cut -d' ' -f2 | xargs -r cp -t "$kept"
        rm -r "$fresh"
        echo "$target: $(find "$kept" -type f | wc -l) inputs are kept"
    done
}

main() {
    local all passed=0 failed=0 target
    mapfile -t all < <(targets)
    mkdir -p "$LOGS" "$ARTIFACTS"
    build || return
    if [ "${1:-}" = --keep ]; then
        keep "${all[@]}"
        return
    fi
    if [ $# -eq 2 ] && [ -f "$2" ]; then
        exec "$binaries/$1" "${LIMITS[@]}" "$2"
    fi
    [ $# -eq 0 ] || all=("$@")
    for target in "${all[@]}"; do
        [ "$(jobs -rp | wc -l)" -lt "$JOBS" ] || { wait -n && passed=$((passed + 1)) || failed=$((failed + 1)); }
        fuzz "$target" &
    done
    while [ $((passed + failed)) -lt ${#all[@]} ]; do
        wait -n && passed=$((passed + 1)) || failed=$((failed + 1))
    done
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}

main "$@"
