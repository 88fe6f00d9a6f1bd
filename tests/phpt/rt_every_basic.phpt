--TEST--
rt_every() does not drift, and leaves out what it missed
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_every_basic/hub.sock
realtime.threads=1
--FILE--
<?php
$start = microtime(true);
$turns = [];
$timer = rt_every(0.05, function () use (&$turns, $start) {
    $turns[] = round((microtime(true) - $start) / 0.05);
    if (count($turns) === 3) {
        // Over the next two turns.
        usleep(120000);
    }
});
var_dump(is_int($timer));
rt_after(0.43, 'rt_stop');
rt_run(5);
echo implode(' ', $turns), "\n";
?>
--EXPECTF--
bool(true)
1 2 3 5 6 7 8
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_every_basic');
?>
