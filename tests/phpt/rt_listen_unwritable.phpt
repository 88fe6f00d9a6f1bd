--TEST--
rt_listen() says why it cannot use the directory of the control socket
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_unwritable/hub.sock
realtime.threads=1
realtime.socket=/proc/nowhere/hub.sock
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

attempt(fn() => rt_listen());
attempt(fn() => rt_broadcast('a', 1));
?>
--EXPECT--
TODO
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_unwritable');
?>
