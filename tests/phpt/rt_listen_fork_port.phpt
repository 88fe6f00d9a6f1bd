--TEST--
a child that lives on does not keep its parent's port and control socket
--EXTENSIONS--
realtime
pcntl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_fork_port/hub.sock
realtime.threads=1
--FILE--
<?php
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$parent = pcntl_fork();
if ($parent === 0) {
    $address = rt_listen();
    if (pcntl_fork() === 0) {
        fclose($ours);
        // It has begun: only now can it have let go of anything.
        fwrite($theirs, $address);
        // Until the test is done, or has ended.
        fread($theirs, 1);
        exit;
    }
    exit;
}
pcntl_waitpid($parent, $status);
$address = fread($ours, 100);
var_dump(rt_listen($address) === $address);
fwrite($ours, 'x');
?>
--EXPECTF--
bool(true)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_fork_port');
?>
