--TEST--
rt_subscribe() and rt_unsubscribe() steer a connection
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_subscribe_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
[$connection] = rt_connections();
var_dump(rt_subscribe($connection->id, 'private-room'));
echo $socket->frame(), "\n";
var_dump(rt_channels());
var_dump(rt_unsubscribe($connection->id, 'private-room'));
echo $socket->frame(), "\n";
var_dump(rt_unsubscribe($connection->id, 'private-room'));
var_dump($connection->subscribe('a'), $connection->unsubscribe('a'), rt_channels());
var_dump(rt_subscribe(str_repeat('0', 32), 'a'), rt_unsubscribe(str_repeat('0', 32), 'a'));
?>
--EXPECTF--
bool(true)
{"type":"subscribed","channel":"private-room","id":"*"}
array(1) {
  ["private-room"]=>
  int(1)
}
bool(true)
{"type":"unsubscribed","channel":"private-room"}
bool(false)
bool(true)
bool(true)
array(0) {
}
bool(false)
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_subscribe_basic');
?>
