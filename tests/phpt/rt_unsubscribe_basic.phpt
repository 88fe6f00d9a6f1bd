--TEST--
rt_unsubscribe() ends the flow of messages
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_unsubscribe_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
$socket->send('{"type":"subscribe","channel":"chat"}');
$socket->frame();
rt_broadcast('chat', 'heard');
rt_unsubscribe(rt_connections('chat')[0]->id, 'chat');
rt_broadcast('chat', 'not heard');
$socket->send('{"type":"ping"}');
echo $socket->frame(), "\n", $socket->frame(), "\n", $socket->frame(), "\n";
var_dump(rt_connections('chat'));
?>
--EXPECTF--
{"type":"message","channel":"chat","event":"message","id":"*","data":"heard"}
{"type":"unsubscribed","channel":"chat"}
{"type":"pong"}
array(0) {
}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_unsubscribe_basic');
?>
