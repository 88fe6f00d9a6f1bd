--TEST--
rt_on_message() handlers get what clients send; the first value returned is the reply
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_message(function (Realtime\Message $m) {
    echo "$m->channel $m->event ", gettype($m->data), ' ', json_encode($m->data), ' ', get_class($m->from), "\n";
});
rt_on_message(fn($m) => ['chat' => $m->data], 'chat.*');
rt_on_message(fn($m) => 'too late', 'chat.1');
rt_on_message(fn($m) => 'others', 'news');
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
$socket->send('{"type":"publish","channel":"chat.1","data":{"a":[1,2.5]},"ref":1}');
echo $socket->frame(), "\n";
$socket->send('{"type":"publish","channel":"news","event":"said","data":"x","ref":"r"}');
echo $socket->frame(), "\n";
$socket->send('{"type":"publish","channel":"none","data":null,"ref":3}');
echo $socket->frame(), "\n";
?>
--EXPECTF--
chat.1 message array {"a":[1,2.5]} Realtime\Connection
{"type":"reply","ref":1,"data":{"chat":{"a":[1,2.5]}}}
news said string "x" Realtime\Connection
{"type":"reply","ref":"r","data":"others"}
none message NULL null Realtime\Connection
{"type":"reply","ref":3,"data":null}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_basic');
?>
