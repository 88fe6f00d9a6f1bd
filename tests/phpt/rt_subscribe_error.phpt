--TEST--
rt_subscribe() and rt_unsubscribe() say what is wrong with an argument
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_subscribe_error/hub.sock
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

foreach (['rt_subscribe', 'rt_unsubscribe'] as $function) {
    attempt(fn() => $function('me', 'chat'));
    attempt(fn() => $function(str_repeat('a', 32), ''));
    attempt(fn() => $function(str_repeat('a', 32), 'a*'));
    attempt(fn() => $function('me'));
}
?>
--EXPECTF--
ValueError: rt_subscribe(): Argument #1 ($connection) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_subscribe(): Argument #2 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_subscribe(): Argument #2 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found '*'
ArgumentCountError: rt_subscribe() expects exactly 2 arguments, 1 given
ValueError: rt_unsubscribe(): Argument #1 ($connection) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_unsubscribe(): Argument #2 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_unsubscribe(): Argument #2 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found '*'
ArgumentCountError: rt_unsubscribe() expects exactly 2 arguments, 1 given
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_subscribe_error');
?>
