--TEST--
rt_listen() on a taken port says who has it
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_port_in_use/hub.sock
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

// The name by which the system knows this process, whatever runs it.
file_put_contents('/proc/self/comm', 'the-holder');
$taken = stream_socket_server('tcp://127.0.0.1:0');
$address = stream_socket_get_name($taken, false);
attempt(fn() => rt_listen($address));
attempt(fn() => rt_broadcast('a', 1));
?>
--EXPECTF--
Realtime\Exception: cannot listen on 127.0.0.1:%d (realtime.listen): it is taken by process %d (the-holder)
Realtime\Exception: no realtime server is running: nobody listens on the control socket %s/realtime-phpt-rt_listen_port_in_use/hub.sock. Start one with rt_listen() and rt_run() in a `php` process of this user, or set realtime.socket to the socket of the one that runs
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_port_in_use');
?>
