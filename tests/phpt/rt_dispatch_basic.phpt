--TEST--
rt_dispatch() handles what waits, at most as much as it is told, and never waits
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_dispatch_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

var_dump(rt_dispatch());
$address = rt_listen();
rt_on_message(fn($m) => print("$m->data\n"));
$socket = new Socket($address, '/raw/chat', [], fn() => usleep(1000));
var_dump(rt_dispatch(), rt_dispatch(5));
foreach (['one', 'two', 'three', 'four'] as $data) {
    $socket->send($data);
}
$socket->sync();
var_dump(rt_dispatch(1), rt_dispatch(2), rt_dispatch(), rt_dispatch());
try {
    rt_dispatch(-1);
} catch (ValueError $e) {
    echo $e->getMessage(), "\n";
}
?>
--EXPECTF--
int(0)
int(0)
int(0)
one
two
three
four
int(1)
int(2)
int(1)
int(0)
rt_dispatch(): Argument #1 ($max) must be greater than or equal to 0
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_dispatch_basic');
?>
