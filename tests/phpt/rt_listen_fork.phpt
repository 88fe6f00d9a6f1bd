--TEST--
after pcntl_fork() the child talks to its parent's server, and its end ends nothing
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_fork/hub.sock
realtime.threads=1
realtime.timeout=20
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$socket = new Socket($address, '/raw/chat');
rt_on_close(fn() => print("closed\n"));
$pid = pcntl_fork();
if ($pid === 0) {
    rt_broadcast('chat', ['from' => 'child', 'same' => rt_stats()['pid'] === posix_getppid()]);
    try {
        rt_listen();
    } catch (Realtime\Exception $e) {
        rt_broadcast('chat', str_contains($e->getMessage(), (string) posix_getppid()));
    }
    exit(7);
}
pcntl_waitpid($pid, $status);
echo pcntl_wexitstatus($status), "\n";
echo $socket->receive(), "\n", $socket->receive(), "\n";
rt_broadcast('chat', 'from the parent');
echo $socket->receive(), "\n";
?>
--EXPECTF--
7
{"from":"child","same":true}
true
from the parent
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_fork');
?>
