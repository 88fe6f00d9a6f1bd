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
--EXPECTF--
Realtime\Exception: cannot create the directory /proc/nowhere for realtime.socket: %s
Realtime\Exception: no realtime server is running: nobody listens on the control socket /proc/nowhere/hub.sock. Start one with rt_listen() and rt_run() in a `php` process of this user, or set realtime.socket to the socket of the one that runs
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_unwritable');
?>
