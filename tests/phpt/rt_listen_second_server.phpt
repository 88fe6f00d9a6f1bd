--TEST--
rt_listen() where another server has the control socket names it
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_second_server/hub.sock
realtime.threads=1
realtime.timeout=20
--FILE--
<?php
require __DIR__ . '/client.inc';

function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$pid = pcntl_fork();
if ($pid === 0) {
    fwrite($theirs, rt_listen());
    rt_run(slow(30));
    exit;
}
$address = fread($ours, 100);
$tell = fn($e) => str_replace([(string) $pid, $address], ['PID', 'ADDRESS'], $e->getMessage());
foreach (['rt_listen', 'rt_run'] as $function) {
    try {
        $function();
    } catch (Realtime\Exception $e) {
        echo $tell($e), "\n";
    }
}
attempt(fn() => rt_broadcast('chat', 'through the other') !== '');
posix_kill($pid, SIGTERM);
pcntl_waitpid($pid, $status);
?>
--EXPECTF--
a realtime server already runs in process PID, listening on ADDRESS, on the control socket %s/realtime-phpt-rt_listen_second_server/hub.sock; to run a second one, give it a realtime.socket of its own
a realtime server already runs in process PID, listening on ADDRESS, on the control socket %s/realtime-phpt-rt_listen_second_server/hub.sock; to run a second one, give it a realtime.socket of its own
true
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_second_server');
?>
