--TEST--
rt_stats() takes nothing and needs a server
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_stats_error/hub.sock
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

attempt(fn() => rt_stats(1));
attempt(fn() => rt_stats());
?>
--EXPECTF--
ArgumentCountError: rt_stats() expects exactly 0 arguments, 1 given
Realtime\Exception: no realtime server is running%s
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_stats_error');
?>
