--TEST--
rt_stop() ends rt_dispatch() too, and nothing is lost
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_dispatch_stop/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
rt_on_message(function ($m) {
    echo "$m->data\n";
    rt_stop();
});
$socket = new Socket($address, '/raw/chat', [], fn() => usleep(1000));
$socket->send('one');
$socket->send('two');
$socket->sync();
var_dump(rt_dispatch());
var_dump(rt_dispatch());
var_dump(rt_dispatch());
?>
--EXPECTF--
one
int(1)
two
int(1)
int(0)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_dispatch_stop');
?>
