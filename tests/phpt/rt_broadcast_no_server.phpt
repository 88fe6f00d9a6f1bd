--TEST--
rt_broadcast() without a server names the socket that it tried and the cure
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_no_server/hub.sock
realtime.threads=1
--FILE--
<?php
try {
    rt_broadcast('orders', 1);
} catch (Realtime\Exception $e) {
    echo $e->getMessage(), "\n", basename($e->getFile()), ':', $e->getLine(), "\n", $e->getTraceAsString(), "\n";
}
?>
--EXPECTF--
no realtime server is running: nobody listens on the control socket %s/realtime-phpt-rt_broadcast_no_server/hub.sock. Start one with rt_listen() and rt_run() in a `php` process of this user, or set realtime.socket to the socket of the one that runs
rt_broadcast_no_server.php:3
#0 %srt_broadcast_no_server.php(3): rt_broadcast('orders', 1)
#1 {main}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_no_server');
?>
