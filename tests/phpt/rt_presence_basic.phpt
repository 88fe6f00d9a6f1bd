--TEST--
rt_presence() knows who is on a channel, by a token or by rt_on_subscribe()
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_presence_basic/hub.sock
realtime.threads=1
realtime.presence_grace=0
realtime.secret=a-secret-of-the-tests-that-is-long-enough
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_subscribe(fn(Realtime\Connection $c, string $channel) => match ($c->query['as'] ?? '') {
    'seven' => ['user' => 7],
    'eve' => ['user' => 'eve', 'info' => ['name' => 'Eve', 'since' => 2.5]],
    'watcher' => true,
    default => null,
});
$address = rt_listen();
$token = rt_token(['sub' => 'ada', 'channels' => 'presence-*', 'info' => ['name' => 'Ada']]);
$join = function (string $query) use ($address): Socket {
    $socket = new Socket($address, "/ws?$query");
    $socket->receive();
    $socket->send('{"type":"subscribe","channel":"presence-room"}');
    echo $socket->frame(), "\n";
    return $socket;
};
$ada = $join("token=$token");
$second = $join("token=$token");
$seven = $join('as=seven');
$eve = $join('as=eve');
$watcher = $join('as=watcher');
$closed = $join('as=nobody');
echo $ada->frame(), "\n", $ada->frame(), "\n";
var_dump(rt_presence('presence-room') === [
    7 => ['info' => null, 'connections' => 1],
    'ada' => ['info' => ['name' => 'Ada'], 'connections' => 2],
    'eve' => ['info' => ['name' => 'Eve', 'since' => 2.5], 'connections' => 1],
]);
echo json_encode(rt_presence('presence-empty')), "\n";
$eve->end();
echo $ada->frame(), "\n";
echo implode(' ', array_keys(rt_presence('presence-room'))), "\n";
?>
--EXPECT--
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"ada","info":{"name":"Ada"}}]}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"ada","info":{"name":"Ada"}}]}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"7"},{"user":"ada","info":{"name":"Ada"}}]}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"7"},{"user":"ada","info":{"name":"Ada"}},{"user":"eve","info":{"name":"Eve","since":2.5}}]}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"7"},{"user":"ada","info":{"name":"Ada"}},{"user":"eve","info":{"name":"Eve","since":2.5}}]}
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-room"}
{"type":"join","channel":"presence-room","id":"*","user":"7"}
{"type":"join","channel":"presence-room","id":"*","user":"eve","info":{"name":"Eve","since":2.5}}
bool(true)
[]
{"type":"leave","channel":"presence-room","id":"*","user":"eve"}
7 ada
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_presence_basic');
?>
