--TEST--
rt_cancel() ends a timer, also from its own callback
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_cancel_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

$timer = rt_every(slow(0.01), function () use (&$timer) {
    static $count = 0;
    echo ++$count, "\n";
    if ($count === 2) {
        var_dump(rt_cancel($timer));
        // In which it would come again some times.
        rt_after(slow(0.1), 'rt_stop');
    }
});
$never = rt_after(slow(0.02), fn() => print("never\n"));
var_dump(rt_cancel($never), rt_cancel($never), rt_cancel(12345));
rt_run(slow(30));
// What a callback held is let go while others come and go.
final class Witness { public function __destruct() { echo "released\n"; rt_after(0, function () { echo "by destructor\n"; rt_stop(); }); } }
$witness = new Witness;
$held = rt_after(slow(5), fn() => $witness);
unset($witness);
rt_cancel($held);
rt_run(slow(30));
?>
--EXPECTF--
bool(true)
bool(false)
bool(false)
1
2
bool(true)
released
by destructor
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_cancel_basic');
?>
