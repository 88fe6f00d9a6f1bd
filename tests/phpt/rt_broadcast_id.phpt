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
// The server's own ids are no publisher's: a client that has got the message with this one could not say where it stands.
$given = rt_broadcast('orders', 'second');
$epoch = strtok($given, '-');
foreach ([$given, "$epoch-999", 'a1b2c3d4-7', "urn:uuid:$epoch-0000-8000-8000-000000000003"] as $id) {
    try {
        rt_broadcast(['others', 'orders'], 'second again', id: $id);
    } catch (Realtime\Exception $e) {
        echo $e->getMessage(), "\n";
    }
}
var_dump(rt_broadcast('dated', 'all digits', id: '20261123-42'));
var_dump(count(rt_history('orders')), count(rt_history('others')));
?>
--EXPECTF--
string(8) "order-42"
string(8) "order-42"
string(8) "order-42"
[["order-42","first"]]
[["order-42","there"]]
"%x-3" is an id as the server gives them itself: take another one
"%x-999" is an id as the server gives them itself: take another one
"a1b2c3d4-7" is an id as the server gives them itself: take another one
"urn:uuid:%x-0000-8000-8000-000000000003" is an id as the server gives them itself: take another one
string(11) "20261123-42"
int(2)
int(1)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_id');
?>
