--TEST--
The very first message in a new realtime.data_dir outlives a kill -9 as well
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_disk_new/hub.sock
realtime.threads=1
realtime.history=disk
realtime.data_dir={TMP}/realtime-phpt-rt_broadcast_disk_new
--FILE--
<?php
require __DIR__ . '/clean.inc';

[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$killed = function (callable $work) use ($ours, $theirs): void {
    if (($pid = pcntl_fork()) === 0) {
        rt_listen();
        $work();
        fwrite($theirs, '.');
        sleep(60);
        exit(1);
    }
    fread($ours, 1);
    posix_kill($pid, SIGKILL);
    pcntl_waitpid($pid, $status);
};
// By luck a server may have written everything by then, so several times.
for ($i = 0; $i < 8; $i++) {
    $killed(fn() => rt_broadcast('orders', $i));
    $killed(fn() => print(json_encode(array_column(rt_history('orders'), 'data')) . "\n"));
    clean('rt_broadcast_disk_new');
}
?>
--EXPECT--
[0]
[1]
[2]
[3]
[4]
[5]
[6]
[7]
