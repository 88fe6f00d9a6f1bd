--TEST--
rt_broadcast() accepts an id once in a channel, so that a retry is harmless
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_id/hub.sock
realtime.threads=1
--FILE--
<?php
rt_listen();
var_dump(rt_broadcast('orders', 'first', id: 'order-42'));
var_dump(rt_broadcast('orders', 'again', id: 'order-42'));
var_dump(rt_broadcast('others', 'there', id: 'order-42'));
foreach (['orders', 'others'] as $channel) {
    echo json_encode(array_map(fn($m) => [$m['id'], $m['data']], rt_history($channel))), "\n";
}
?>
--EXPECTF--
string(8) "order-42"
string(8) "order-42"
string(8) "order-42"
[["order-42","first"]]
[["order-42","there"]]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_id');
?>
