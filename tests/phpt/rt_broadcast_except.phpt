--TEST--
rt_broadcast() leaves out the connection named by except, event and store do what they say
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_except/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$one = new Socket($address, '/ws?a=1');
$two = new Socket($address, '/ws?a=2');
foreach ([$one, $two] as $socket) {
    echo $socket->frame(), "\n";
    $socket->send('{"type":"subscribe","channel":"chat"}');
    echo $socket->frame(), "\n";
}
[$first] = array_values(array_filter(rt_connections('chat'), fn($c) => $c->query['a'] === '1'));
rt_broadcast('chat', 'for two', 'said', $first->id, store: false);
rt_broadcast('chat', 'for both');
echo $one->frame(), "\n", $two->frame(), "\n", $two->frame(), "\n";
echo json_encode(array_column(rt_history('chat'), 'data')), "\n";
?>
--EXPECTF--
{"type":"welcome","connection":"*","key":"*","version":1,"ping":25,"max_message_size":65536}
{"type":"subscribed","channel":"chat","id":"*"}
{"type":"welcome","connection":"*","key":"*","version":1,"ping":25,"max_message_size":65536}
{"type":"subscribed","channel":"chat","id":"*"}
{"type":"message","channel":"chat","event":"message","id":"*","data":"for both"}
{"type":"message","channel":"chat","event":"said","id":"*","data":"for two"}
{"type":"message","channel":"chat","event":"message","id":"*","data":"for both"}
["for both"]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_except');
?>
