--TEST--
rt_run() serves until its time is up and counts what it handled
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_run_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$start = microtime(true);
var_dump(rt_run(slow(0.2)));
$took = microtime(true) - $start;
var_dump($took >= slow(0.2), $took < slow(10));
rt_on_open(fn() => true);
rt_on_message(function ($m) {
    if ($m->data === 'two') {
        rt_stop();
    }
    return $m->data;
});
$socket = new Socket(rt_listen(), '/raw/chat', [], fn() => rt_run(0.001));
$socket->send('one');
$socket->send('two');
$count = rt_run(slow(30));
echo $socket->receive(), $socket->receive(), " $count\n";
var_dump(rt_run(0));
?>
--EXPECTF--
int(0)
bool(true)
bool(true)
onetwo 2
int(0)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_run_basic');
?>
