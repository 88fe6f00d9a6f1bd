--TEST--
rt_on_subscribe() refuses with false, and opens guarded channels with true alone
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_subscribe_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_subscribe(function (Realtime\Connection $c, string $channel) {
    return match ($channel) {
        'closed', 'private-closed' => false,
        'private-open', 'presence-open' => true,
        'private-one' => 1,
        'broken' => throw new Exception('broken'),
        default => null,
    };
});
rt_on_error(fn($c, $e) => print($e->getMessage() . "\n"));
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
foreach (['open', 'closed', 'private-open', 'presence-open', 'private-closed', 'private-one', 'private-', 'broken'] as $channel) {
    $socket->send('{"type":"subscribe","channel":"' . $channel . '"}');
    $frame = json_decode($socket->receive());
    echo "$channel: $frame->type ", $frame->code ?? '', "\n";
}
rt_on_subscribe(fn($c, $channel) => $channel !== 'private-open');
foreach (['private-open', 'private-one'] as $channel) {
    $socket->send('{"type":"unsubscribe","channel":"' . $channel . '"}');
    $socket->receive();
    $socket->send('{"type":"subscribe","channel":"' . $channel . '"}');
    echo "$channel: ", json_decode($socket->receive())->type, "\n";
}
?>
--EXPECTF--
open: subscribed 
closed: error forbidden
private-open: subscribed 
presence-open: subscribed 
private-closed: error forbidden
private-one: error forbidden
private-: error forbidden
broken
broken: error forbidden
private-open: error
private-one: subscribed
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_subscribe_basic');
?>
