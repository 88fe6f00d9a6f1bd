--TEST--
rt_after() calls once, in the order of time
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_after_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

// Long after the others, also on a machine that stands still for a while.
rt_after(slow(0.5) + 2.5, fn() => print("third\n"));
rt_after(0, fn() => print("first\n"));
rt_after(slow(0.02), function () {
    echo "second\n";
    rt_after(slow(0.01), fn() => print("added meanwhile\n"));
});
rt_after(slow(0.6) + 2.5, 'rt_stop');
rt_run(slow(30));
rt_run(slow(0.05));
rt_after(0, fn() => print("in rt_dispatch()\n"));
var_dump(rt_dispatch());
?>
--EXPECTF--
first
second
added meanwhile
third
in rt_dispatch()
int(0)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_after_basic');
?>
