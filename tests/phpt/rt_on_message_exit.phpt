--TEST--
exit() in a handler ends the script as ever; clients are told
--EXTENSIONS--
realtime
pcntl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_exit/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';
// The server is a child's, which dies of its handler; the client is here.
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$pid = pcntl_fork();
if ($pid === 0) {
    register_shutdown_function(fn() => print("shutdown function\n"));
    rt_on_message(function () { exit(3); });
    fwrite($theirs, rt_listen());
    rt_run(slow(30));
    echo "not reached\n";
    exit;
}
$nothing = fn() => usleep(1000);
$socket = new Socket(fread($ours, 100), '/ws', [], $nothing);
$socket->frame();
$socket->send('{"type":"publish","channel":"chat","data":"x","ref":1}');
$told = [$socket->frame(), $socket->receive()];
// What the server's end prints comes first, however fast each of the two processes is.
pcntl_waitpid($pid, $status);
echo implode("\n", $told), "\n";
echo 'exit ', pcntl_wexitstatus($status), "\n";
?>
--EXPECTF--
shutdown function
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
close 1001%S
exit 3
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_exit');
?>
