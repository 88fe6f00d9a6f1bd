"""Autobahn's cases, as kosoku drives them, against tests/autobahn/echo.php: every one must be OK or INFORMATIONAL.

    build/autobahn/bin/python tests/autobahn/run.py [CASE ...]      CASE: 1.1.1, or 12.*; all without one

From the environment: REALTIME_SO (the extension), PHP ("php"), ARTIFACTS (where the report goes). Called by tests/run.sh.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import kosoku
from kosoku._report import write_reports
from kosoku.cases import CASES

HERE = Path(__file__).resolve().parent
# Autobahn sends messages of up to 16 MiB, and many of them without waiting.
SETTINGS = {"max_message_size": "32M", "max_backlog": "256M", "queue_bytes": "512M", "rate_messages": "0", "rate_bytes": "0",
            "log_level": "error"}
GOOD = {"OK", "INFORMATIONAL"}


def as_bytes(on_message):
    """kosoku hands over a message that was not compressed as str; the cases of sections 12 and 13 take its hash."""

    def receive(case, message, binary):
        if isinstance(message, str):
            message = message.encode("latin-1" if binary else "utf-8")
        on_message(case, message, binary)

    return receive


def serve(home: str) -> tuple[subprocess.Popen, str]:
    settings = {f"realtime.{name}": value for name, value in SETTINGS.items()}
    settings["extension"] = os.environ.get("REALTIME_SO", HERE.parents[1] / "modules/realtime.so")
    settings["realtime.socket"] = f"{home}/hub.sock"
    options = [word for name, value in settings.items() for word in ("-d", f"{name}={value}")]
    command = [os.environ.get("PHP", "php"), "-n", *options, HERE / "echo.php", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    word, _, address = server.stdout.readline().strip().partition(" ")
    if word != "LISTEN":
        sys.exit("the echo server did not start")
    return server, address


async def run(address: str, cases: list[str] | None) -> list:
    try:
        return await kosoku.run_fuzzingclient(f"ws://{address}/raw/echo", cases, concurrency=4)
    except kosoku.FailureError as failure:
        return failure.results


def main() -> None:
    for case_id, case in CASES.items():
        if case_id.startswith(("12.", "13.")):
            case.onMessage = as_bytes(case.onMessage)
    with tempfile.TemporaryDirectory(prefix="realtime-autobahn-") as home:
        server, address = serve(home)
        try:
            results = asyncio.run(run(address, sys.argv[1:] or None))
        finally:
            server.terminate()
            server.wait()
    write_reports(results, str(Path(os.environ.get("ARTIFACTS", "build/artifacts")) / "autobahn"))
    verdicts, closings, bad = Counter(), Counter(), 0
    for result in results:
        verdict, closing = result.behavior.value, result.behavior_close.value
        verdicts[verdict] += 1
        closings[closing] += 1
        if not {verdict, closing} <= GOOD:
            bad += 1
            print(f"{result.case_id}: {verdict}, closing {closing}: {result.result} {result.result_close}")
    for name, counts in (("verdicts", verdicts), ("closings", closings)):
        print(f"{name}:", ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))
    # Autobahn's own number of cases: fewer would be sections that another version leaves out.
    missing = 0 if sys.argv[1:] else max(0, 517 - len(results))
    if missing:
        print(f"{missing} cases of 517 did not run")
    print(f"{len(results) - bad} passed, {bad + missing} failed")
    sys.exit(bad + missing > 0 or not results)


if __name__ == "__main__":
    main()
