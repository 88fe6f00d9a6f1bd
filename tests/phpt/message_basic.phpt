--TEST--
Realtime\Message is readonly, and its reply is given once
--EXTENSIONS--
realtime
ctype
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-message_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

$kept = null;
rt_on_message(function (Realtime\Message $m) use (&$kept) {
    $kept = $m;
    attempt(fn() => $m->data = 'x');
    attempt(fn() => clone $m);
    attempt(fn() => serialize($m));
    attempt(fn() => $m->reply(NAN));
    attempt(fn() => $m->reply(['by' => 'method']));
    attempt(fn() => $m->reply('again'));
    return 'returned, but too late';
});
attempt(fn() => new Realtime\Message);
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
$socket->send('{"type":"publish","channel":"chat","data":"x","ref":1}');
echo $socket->frame(), "\n";
attempt(fn() => $kept->reply('after all'));
attempt(fn() => [$kept->channel, $kept->event, $kept->data, ctype_digit($kept->id), $kept->from->transport]);
?>
--EXPECTF--
Error: Call to private Realtime\Message::__construct() from global scope
Error: Cannot modify readonly property Realtime\Message::$data
Error: Trying to clone an uncloneable object of class Realtime\Message
Exception: Serialization of 'Realtime\Message' is not allowed
ValueError: Realtime\Message::reply(): Argument #1 ($data) must be JSON-encodable: Inf and NaN cannot be JSON encoded
null
Realtime\Exception: this message has been answered: reply() may be called once, before its handlers have returned
{"type":"reply","ref":1,"data":{"by":"method"}}
Realtime\Exception: this message has been answered: reply() may be called once, before its handlers have returned
["chat","message","x",true,"websocket"]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('message_basic');
?>
