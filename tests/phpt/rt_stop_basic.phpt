--TEST--
rt_stop() ends rt_run() after the handler that runs, and only that run
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_stop_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_stop();
$timer = rt_every(slow(0.05), function () use (&$timer) {
    static $count = 0;
    echo ++$count, "\n";
    if ($count === 2) {
        // Or it may be its turn again at once.
        rt_cancel($timer);
    }
    rt_stop();
    echo "to its end\n";
});
rt_run(slow(5));
rt_run(slow(5));
rt_run(0);
?>
--EXPECTF--
1
to its end
2
to its end
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_stop_basic');
?>
