--TEST--
A reply over realtime.max_message_size is the handler's error, and the client stays connected
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_message_reply_size/hub.sock
realtime.threads=1
realtime.max_message_size=1K
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_message(fn(Realtime\Message $m) => match ($m->data) {
    'returned' => str_repeat('x', 2000),
    'method' => $m->reply(str_repeat('x', 2000)),
    default => 'fits',
});
rt_on_error(fn($c, $e) => print(get_class($e) . ': ' . $e->getMessage() . "\n"));
$address = rt_listen();
$client = new Socket($address, '/ws');
$client->frame();
foreach (['returned', 'method', 'small'] as $i => $data) {
    $client->send(json_encode(['type' => 'publish', 'channel' => 'a', 'data' => $data, 'ref' => $i]));
    echo $client->frame(), "\n";
}
?>
--EXPECT--
Realtime\Exception: the message has 2002 bytes, realtime.max_message_size allows 1024
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":0}
Realtime\Exception: the message has 2002 bytes, realtime.max_message_size allows 1024
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
{"type":"reply","ref":2,"data":"fits"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_message_reply_size');
?>
