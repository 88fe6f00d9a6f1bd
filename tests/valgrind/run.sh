#!/usr/bin/env bash
# Runs PHPTs with memcheck: all of them, or those that are named. Every error, and every leak that is no longer reachable, of
# any process is a failure. Of one that a test kills (kill -9, as of the tests of php -S), only errors are seen.
#
# Not run-tests.php's own -m: that has one log for all processes of a test, of which each overwrites the one before.
set -uo pipefail
cd "$(dirname "$0")/../.."

export VALGRIND_PHP VALGRIND_LOGS=$PWD/build/valgrind
VALGRIND_PHP=$(command -v "${PHP:-php}")
ARTIFACTS=${ARTIFACTS:-$PWD/build/artifacts}

# The processes under memcheck, which have their logs open. By their environment they could not be told: over that a hub
# writes its title.
left() {
    local process
    for process in /proc/[0-9]*; do
        case $(readlink "$process/exe") in */memcheck-*) ;; *) continue ;; esac
        [ -z "$(find "$process/fd" -lname "$VALGRIND_LOGS/*" -print -quit 2>/dev/null)" ] || echo "${process#/proc/}"
    done
}

# Waits until those that a test has left behind have ended, or ends them: such as a hub that only now hears of its master's end,
# and looks through its memory on its way out. Each is as large as ten others.
end_all() {
    local deadline=$((SECONDS + ${1:-0})) processes
    while processes=$(left) && [ -n "$processes" ]; do
        [ "$SECONDS" -lt "$deadline" ] || { kill -9 $processes; break; }
        sleep 0.2
    done
}

main() {
    local status log found=0
    [ $# -gt 0 ] || set -- tests/phpt
    rm -rf "$VALGRIND_LOGS"
    mkdir -p "$VALGRIND_LOGS" "$ARTIFACTS"
    trap end_all EXIT
    # No process may take the machine's memory: one test's takes some 600 MB.
    ulimit -v 6000000
    # Everything takes twenty times as long.
    NO_INTERACTION=1 "$VALGRIND_PHP" -n build/run-tests.php -p "$PWD/tests/valgrind/php" -n -q -j2 --set-timeout 300 \
        -d extension_dir="$PWD/build/extensions" --no-color --show-diff -g FAIL,LEAK,WARN,BORK --no-progress "$@"
    status=$?
    end_all 30
    find tests/phpt \( -name '*.diff' -o -name '*.out' \) -exec cp -t "$ARTIFACTS" {} +
    for log in "$VALGRIND_LOGS"/*.log; do
        # Older valgrinds do not know pidfd_open(), without which the hub can do.
        sed -i -E '/^--[0-9]+-- WARNING: unhandled .* syscall: 434$/,+4d' "$log"
        [ -s "$log" ] || continue
        found=$((found + 1))
        cp "$log" "$ARTIFACTS/valgrind-${log##*/}"
        echo "${log##*/}:"
        [ "$found" -gt 3 ] || cat "$log"
    done
    # A process that memcheck did not see would have nothing to say.
    set -- "$VALGRIND_LOGS"/*.log
    echo "memcheck: $found of $# processes had something to say"
    [ "$status" -eq 0 ] && [ "$found" -eq 0 ] && [ $# -gt 10 ]
}

main "$@"
