--TEST--
rt_run() refuses times that are none, and to run in itself
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_run_error/hub.sock
realtime.threads=1
--FILE--
<?php
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

attempt(fn() => rt_run(-1));
attempt(fn() => rt_run(NAN));
attempt(fn() => rt_run(INF));
attempt(fn() => rt_run('soon'));
rt_after(0, function () {
    attempt(fn() => rt_run());
    rt_stop();
});
attempt(fn() => rt_run());
?>
--EXPECTF--
ValueError: rt_run(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_run(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_run(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
TypeError: rt_run(): Argument #1 ($seconds) must be of type ?float, string given
Realtime\Exception: rt_run() is running already
0
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_run_error');
?>
