--TEST--
rt_broadcast() of another process goes through the control socket
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_process/hub.sock
realtime.threads=1
realtime.timeout=20
--FILE--
<?php
require __DIR__ . '/client.inc';

// Forked before there is a server: this child knows nothing of it.
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
if (pcntl_fork() === 0) {
    fread($theirs, 1);
    $id = rt_broadcast('chat', ['from' => 'cron']);
    $facts = [$id !== '', count(rt_history('chat')), rt_stats()['pid'] === posix_getppid(), rt_channels(), count(rt_connections())];
    [$connection] = rt_connections('chat');
    $facts[] = [$connection->transport, $connection->query, rt_send($connection->id, 'hello'), $connection->close(4000, 'bye')];
    fwrite($theirs, json_encode($facts));
    exit;
}
$socket = new Socket(rt_listen(), '/raw/chat?who=me');
fwrite($ours, 'x');
echo $socket->receive(), "\n", $socket->receive(), "\n", $socket->receive(), "\n";
echo fread($ours, 1000), "\n";
?>
--EXPECTF--
{"from":"cron"}
hello
close 4000 bye
[true,1,true,{"chat":1},1,["raw",{"who":"me"},true,true]]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_process');
?>
