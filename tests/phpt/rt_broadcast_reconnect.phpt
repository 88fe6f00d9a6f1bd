--TEST--
rt_broadcast() finds the server again that has come in place of another
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_reconnect/hub.sock
realtime.threads=1
realtime.timeout=20
--FILE--
<?php
require __DIR__ . '/client.inc';

[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$serve = function () use ($theirs): int {
    if ($pid = pcntl_fork()) {
        return $pid;
    }
    rt_listen();
    rt_on_open(fn() => true);
    // In rt_run(), which SIGTERM ends: before it that would end the process.
    rt_after(0, fn() => fwrite($theirs, 'r'));
    rt_run(slow(30));
    exit;
};
for ($i = 0; $i < 2; $i++) {
    $pid = $serve();
    fread($ours, 1);
    var_dump(rt_broadcast('chat', $i) !== '', rt_stats()['pid'] === $pid);
    posix_kill($pid, SIGTERM);
    pcntl_waitpid($pid, $status);
    var_dump($status);
}
try {
    rt_broadcast('chat', 3);
} catch (Realtime\Exception $e) {
    echo substr($e->getMessage(), 0, 30), "\n";
}
?>
--EXPECTF--
bool(true)
bool(true)
int(0)
bool(true)
bool(true)
int(0)
no realtime server is running:
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_reconnect');
?>
