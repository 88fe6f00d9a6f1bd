--TEST--
max_execution_time ends rt_run()
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_run_time_limit/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

register_shutdown_function(fn() => print("shutdown function\n"));
set_time_limit(1);
rt_every(0.001, function () {
    for ($end = microtime(true) + 0.01; microtime(true) < $end;) {
    }
});
// The limit is of the time that it has on a processor, which may take many times as long.
rt_run(slow(50));
echo "not reached\n";
?>
--EXPECTF--
Fatal error: Maximum execution time of 1 second exceeded in %s on line %d
shutdown function
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_run_time_limit');
?>
