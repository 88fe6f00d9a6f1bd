--TEST--
rt_send() says what is wrong with an argument
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_send_error/hub.sock
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

attempt(fn() => rt_send('me', 1));
attempt(fn() => rt_send(strtoupper(str_repeat('a', 32)), 1));
attempt(fn() => rt_send(str_repeat('a', 32), NAN));
attempt(fn() => rt_send(str_repeat('a', 32), 1, "\t"));
attempt(fn() => rt_send());
attempt(fn() => substr(rt_send(str_repeat('a', 32), 1), 0));
?>
--EXPECTF--
ValueError: rt_send(): Argument #1 ($connection) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_send(): Argument #1 ($connection) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_send(): Argument #2 ($data) must be JSON-encodable: Inf and NaN cannot be JSON encoded
ValueError: rt_send(): Argument #3 ($event) must be 1 to 200 bytes without control characters
ArgumentCountError: rt_send() expects at least 2 arguments, 0 given
Realtime\Exception: no realtime server is running%a
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_send_error');
?>
