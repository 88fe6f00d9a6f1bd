#!/usr/bin/env bash
# Runs PHPTs with memcheck: `tests/valgrind/run.sh` those in subset.txt, `tests/valgrind/run.sh --all` all of them, or those
# that are named. Every error, and every leak that is no longer reachable, of any process is a failure.
#
# Not run-tests.php's own -m: that has one log for all processes of a test, of which each overwrites the one before.
set -uo pipefail
cd "$(dirname "$0")/../.."

export VALGRIND_PHP VALGRIND_LOGS=$PWD/build/valgrind
VALGRIND_PHP=$(command -v "${PHP:-php}")
ARTIFACTS=${ARTIFACTS:-$PWD/build/artifacts}

# Ends what a test left behind, such as a hub that waits for its master's end: under memcheck each is as large as ten others.
end_all() {
    local process
    for process in /proc/[0-9]*; do
        [ "$process" != "/proc/$$" ] && [ "$process" != "/proc/$BASHPID" ] || continue
        case $(readlink "$process/exe") in */memcheck-*) ;; *) continue ;; esac
        tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qxF "VALGRIND_LOGS=$VALGRIND_LOGS" && kill -9 "${process#/proc/}"
    done
    true
}

main() {
    local tests status log found=0
    case ${1:-} in
        '') mapfile -t tests < <(grep -v '^#' tests/valgrind/subset.txt | sed 's,.*,tests/phpt/&.phpt,') ;;
        --all) tests=(tests/phpt) ;;
        *) tests=("$@") ;;
    esac
    rm -rf "$VALGRIND_LOGS"
    mkdir -p "$VALGRIND_LOGS" "$ARTIFACTS"
    trap end_all EXIT
    # No process may take the machine's memory: one test's takes some 600 MB.
    ulimit -v 6000000
    # Everything takes twenty times as long.
    NO_INTERACTION=1 "$VALGRIND_PHP" -n build/run-tests.php -p "$PWD/tests/valgrind/php" -n -q -j2 --set-timeout 300 \
        -d extension_dir="$PWD/build/extensions" --no-color --show-diff -g FAIL,LEAK,WARN,BORK --no-progress "${tests[@]}"
    status=$?
    find tests/phpt \( -name '*.diff' -o -name '*.out' \) -exec cp -t "$ARTIFACTS" {} +
    for log in "$VALGRIND_LOGS"/*.log; do
        [ -s "$log" ] || continue
        found=$((found + 1))
        cp "$log" "$ARTIFACTS/valgrind-${log##*/}"
        [ "$found" -gt 3 ] || cat "$log"
    done
    # A process that memcheck did not see would have nothing to say.
    set -- "$VALGRIND_LOGS"/*.log
    echo "memcheck: $found of $# processes had something to say"
    [ "$status" -eq 0 ] && [ "$found" -eq 0 ] && [ $# -gt 10 ]
}

main "$@"
