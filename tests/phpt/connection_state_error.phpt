--TEST--
What cannot be kept as $connection->state
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-connection_state_error/hub.sock
realtime.threads=1
realtime.state_size=64
--FILE--
<?php
require __DIR__ . '/client.inc';
final class Loud
{
    public function __destruct() { echo "destroyed\n"; }
}
final class Thrower implements JsonSerializable
{
    public function jsonSerialize(): mixed { throw new LogicException('not me'); }
}
$writes = [
    'large' => fn ($c) => $c->state['more'] = str_repeat('x', 64),
    'nan' => fn ($c) => $c->state['more'] = NAN,
    'utf8' => fn ($c) => $c->state = ["\xff"],
    'thrower' => fn ($c) => $c->state['more'] = new Thrower,
    'loud' => fn ($c) => $c->state['more'] = [new Loud, NAN],
    'string' => fn ($c) => $c->state = 'no',
    'deep' => fn ($c) => $c->state['more'] = array_reduce(range(1, 600), fn ($a) => [$a], 1),
    'reference' => function ($c) { $reference = &$c->state; $reference = 5; },
];
rt_on_open(function ($c) { $c->state = ['kept' => 1]; });
rt_on_message(function (Realtime\Message $m) use ($writes) {
    $writes[$m->data]($m->from);
    return 'fine';
});
rt_on_error(fn ($c, Throwable $e) => print(get_class($e) . ": {$e->getMessage()} " . json_encode($c->state) . "\n"));
$s = new Socket(rt_listen(), '/ws');
$s->receive();
foreach (array_keys($writes) as $what) {
    $s->send("{\"type\":\"publish\",\"channel\":\"a\",\"data\":\"$what\",\"ref\":1}");
    echo $s->frame(), "\n";
}
?>
--EXPECT--
Realtime\Exception: Realtime\Connection::$state has 84 bytes as JSON, realtime.state_size allows 64 {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
ValueError: Realtime\Connection::$state must be JSON-encodable: Inf and NaN cannot be JSON encoded {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
ValueError: Realtime\Connection::$state must be JSON-encodable: Malformed UTF-8 characters, possibly incorrectly encoded {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
LogicException: not me {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
destroyed
ValueError: Realtime\Connection::$state must be JSON-encodable: Inf and NaN cannot be JSON encoded {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
TypeError: Cannot assign string to property Realtime\Connection::$state of type ?array {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
ValueError: Realtime\Connection::$state must be JSON-encodable: Maximum stack depth exceeded {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
TypeError: Cannot assign int to reference held by property Realtime\Connection::$state of type ?array {"kept":1}
{"type":"error","code":"handler_failed","message":"the message handler failed","ref":1}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('connection_state_error');
?>
