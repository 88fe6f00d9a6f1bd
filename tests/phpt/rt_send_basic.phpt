--TEST--
rt_send() and Connection::send() reach one connection
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_send_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$one = new Socket($address, '/ws?a=1');
$two = new Socket($address, '/raw/chat');
$one->frame();
foreach (rt_connections() as $connection) {
    var_dump(rt_send($connection->id, ['to' => $connection->transport], 'greeting'));
    var_dump($connection->send('by method'));
}
echo $one->frame(), "\n", $one->frame(), "\n", $two->receive(), "\n", $two->receive(), "\n";
var_dump(rt_send(str_repeat('0', 32), 1));
?>
--EXPECTF--
bool(true)
bool(true)
bool(true)
bool(true)
{"type":"message","event":"greeting","data":{"to":"websocket"}}
{"type":"message","event":"message","data":"by method"}
{"to":"raw"}
by method
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_send_basic');
?>
