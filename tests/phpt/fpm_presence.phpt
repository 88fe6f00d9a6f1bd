--TEST--
presence under PHP-FPM: the handler says who it is by its cookie, a page and any process see it
--EXTENSIONS--
realtime
--SKIPIF--
<?php
require __DIR__ . '/fpm.inc';
if (!fpm_binary()) echo 'skip there is no php-fpm of this PHP';
?>
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-fpm_presence/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.linger=0
realtime.presence_grace=600
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/fpm.inc';
$pool = new Pool('fpm_presence', __DIR__ . '/fpm_presence.inc');
$address = $pool->server();
$wait = fn() => usleep(1000);
$page = fn() => explode('there ', $pool->request(__DIR__ . '/fpm_presence.inc'))[1];
$join = function (string $user) use ($address, $wait): Socket {
    $socket = new Socket($address, '/ws', ['Cookie' => "login=$user"], $wait);
    $socket->receive();
    $socket->send('{"type":"subscribe","channel":"presence-room"}');
    echo $socket->frame(), "\n";
    return $socket;
};
$ada = $join('ada');
$bob = $join('bob');
echo $ada->frame(), "\n", $page(), "\n";
$bob->end();
wait_for(fn() => rt_presence('presence-room')['bob']['connections'] === 0, $wait);
echo $page(), "\n";
$bob = $join('bob');
echo $page(), "\n";
$bob->send('{"type":"unsubscribe","channel":"presence-room"}');
echo $bob->frame(), "\n", $ada->frame(), "\n", json_encode(rt_presence('presence-room')), "\n";
?>
--EXPECT--
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"ada","info":["presence-room"]}]}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"ada","info":["presence-room"]},{"user":"bob","info":["presence-room"]}]}
{"type":"join","channel":"presence-room","id":"*","user":"bob","info":["presence-room"]}
{"ada":{"info":["presence-room"],"connections":1},"bob":{"info":["presence-room"],"connections":1}}
{"ada":{"info":["presence-room"],"connections":1},"bob":{"info":["presence-room"],"connections":0}}
{"type":"subscribed","channel":"presence-room","id":"*","members":[{"user":"ada","info":["presence-room"]},{"user":"bob","info":["presence-room"]}]}
{"ada":{"info":["presence-room"],"connections":1},"bob":{"info":["presence-room"],"connections":1}}
{"type":"unsubscribed","channel":"presence-room"}
{"type":"leave","channel":"presence-room","id":"*","user":"bob"}
{"ada":{"info":["presence-room"],"connections":1}}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('fpm_presence');
?>
