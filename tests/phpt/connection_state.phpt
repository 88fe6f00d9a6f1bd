--TEST--
$connection->state is kept between two events
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-connection_state/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_open(function (Realtime\Connection $c) {
    var_dump($c->state);
    $c->state = ['name' => $c->query['name'], 'count' => 0];
});
rt_on_message(function (Realtime\Message $m) {
    $state = &$m->from->state;
    $state['count']++;
    return $m->from->state;
}, 'count');
rt_on_message(function (Realtime\Message $m) {
    $m->from->state['seen'][] = ['at' => 1.0, 'what' => new ArrayObject(['x' => 1])];
    // As it will be, not as it was put in.
    return json_encode($m->from->state['seen']);
}, 'objects');
rt_on_message(fn (Realtime\Message $m) => var_export($m->from->state['seen'] ?? null, true), 'look');
rt_on_message(function (Realtime\Message $m) {
    unset($m->from->state);
    return [isset($m->from->state), isset($m->from->state['count']), $m->from->state];
}, 'unset');
rt_on_message(function (Realtime\Message $m) {
    $m->from->state ??= [];
    $m->from->state += ['again' => true];
    // Read and changed back: nothing new.
    $m->from->state['x'] = 1;
    unset($m->from->state['x']);
    return array_keys($m->from->state);
}, 'set');
// Another handler of the same event sees what the one before it has left.
rt_on_message(function (Realtime\Message $m) {
    $m->from->state = ['first' => 1];
}, 'two');
rt_on_message(fn (Realtime\Message $m) => $m->from->state, 'two');
rt_on_message(function (Realtime\Message $m) {
    $m->from->state['thrown'] = true;
    throw new Exception('its state is kept all the same');
}, 'throw');
rt_on_error(fn ($c, Throwable $e) => print("{$e->getMessage()}: " . json_encode($c->state) . "\n"));
rt_on_close(function (Realtime\Connection $c, int $code) use (&$closed) {
    $closed = true;
    echo "closed $code ", json_encode($c->state), "\n";
});

$address = rt_listen();
$a = new Socket($address, '/ws?name=a');
$b = new Socket($address, '/ws?name=b');
$a->receive();
$b->receive();
$ref = 0;
$ask = function (Socket $s, string $channel) use (&$ref): string {
    $ref++;
    $s->send("{\"type\":\"publish\",\"channel\":\"$channel\",\"data\":1,\"ref\":$ref}");
    $frame = json_decode($s->receive(), true);
    return json_encode($frame['data'] ?? $frame['code'] ?? $frame, JSON_UNESCAPED_SLASHES);
};
echo $ask($a, 'count'), $ask($a, 'count'), $ask($b, 'count'), "\n";
echo $ask($a, 'objects'), "\n", $ask($a, 'look'), "\n";
echo $ask($a, 'unset'), $ask($a, 'look'), $ask($a, 'set'), $ask($a, 'two'), "\n";
echo $ask($a, 'throw'), "\n";

// Outside of its handlers it can be looked at.
foreach (rt_connections() as $c) {
    $found[$c->query['name']] = $c;
}
echo json_encode([$found['a']->state, $found['b']->state]), "\n";
echo $ask($b, 'count'), json_encode($found['b']->state), json_encode(((array) $found['b'])['state']), "\n";
foreach ([
    fn () => $found['b']->state = [],
    fn () => $found['b']->state['x'] = 1,
    function () use ($found) { unset($found['b']->state); },
    function () use ($found) { $reference = &$found['b']->state; },
] as $write) {
    try {
        $write();
        echo "written\n";
    } catch (Error $e) {
        echo $e->getMessage(), "\n";
    }
}
echo json_encode($found['b']->state), "\n";
$b->send(pack('n', 1000), 8);
wait_for(function () use (&$closed) { return $closed; });
?>
--EXPECT--
NULL
NULL
{"name":"a","count":1}{"name":"a","count":2}{"name":"b","count":1}
"[{\"at\":1,\"what\":{\"x\":1}}]"
"array (\n  0 => \n  array (\n    'at' => 1,\n    'what' => \n    array (\n      'x' => 1,\n    ),\n  ),\n)"
[false,false,null]"NULL"["again"]{"first":1}
its state is kept all the same: {"first":1,"thrown":true}
"handler_failed"
[{"first":1,"thrown":true},{"name":"b","count":1}]
{"name":"b","count":2}{"name":"b","count":2}{"name":"b","count":2}
Realtime\Connection::$state can be written only in a handler of that connection's events
Realtime\Connection::$state can be written only in a handler of that connection's events
Realtime\Connection::$state can be written only in a handler of that connection's events
Realtime\Connection::$state can be written only in a handler of that connection's events
{"name":"b","count":2}
closed 1000 {"name":"b","count":2}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('connection_state');
?>
