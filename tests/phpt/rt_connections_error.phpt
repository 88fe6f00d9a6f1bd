--TEST--
rt_connections() says what is wrong with a channel
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_connections_error/hub.sock
realtime.threads=1
--FILE--
<?php
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

attempt(fn() => rt_connections(''));
attempt(fn() => rt_connections('a*'));
attempt(fn() => rt_connections(null));
?>
--EXPECTF--
ValueError: rt_connections(): Argument #1 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_connections(): Argument #1 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found '*'
Realtime\Exception: no realtime server is running%s
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_connections_error');
?>
