--TEST--
rt_on_close() handlers hear how a connection ended
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_close_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$ended = 0;
rt_on_open(fn($c) => true);
rt_on_close(function (Realtime\Connection $c, int $code, string $reason) use (&$ended) {
    echo "{$c->query['n']}: $code $reason\n";
    $ended++;
});
$one = new Socket($address, '/raw/chat?n=1');
$one->send(pack('n', 4005) . 'my reason', 8);
wait_for(function () use (&$ended) { return $ended === 1; });
$two = new Socket($address, '/raw/chat?n=2');
$two->end();
wait_for(function () use (&$ended) { return $ended === 2; });
?>
--EXPECTF--
1: 4005 my reason
2: 1006%S
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_close_basic');
?>
