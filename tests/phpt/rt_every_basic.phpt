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
require __DIR__ . '/client.inc';

// Where other programs run too a process may have to wait for half a turn, and is late through no fault of its own: then with longer turns.
for ($turn = slow(0.1); $turn < slow(3); $turn *= 2) {
    $start = microtime(true);
    $turns = [];
    $timer = rt_every($turn, function () use (&$turns, $start, $turn) {
        $turns[] = round((microtime(true) - $start) / $turn);
        if (count($turns) === 3) {
            // Over the next two turns.
            usleep((int) (2.2e6 * $turn));
        }
    });
    rt_after(8.6 * $turn, 'rt_stop');
    rt_run(slow(60));
    rt_cancel($timer);
    if (implode(' ', $turns) === '1 2 3 5 6 7 8') {
        break;
    }
}
var_dump(is_int($timer));
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
