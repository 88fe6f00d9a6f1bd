--TEST--
rt_close() says what is wrong with an argument
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_close_error/hub.sock
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

$id = str_repeat('a', 32);
attempt(fn() => rt_close('me'));
attempt(fn() => rt_close($id, 1001));
attempt(fn() => rt_close($id, 70000));
attempt(fn() => rt_close($id, 4000, str_repeat('x', 124)));
attempt(fn() => rt_close($id, 4000, "\xff"));
attempt(fn() => rt_close($id, 'now'));
?>
--EXPECTF--
ValueError: rt_close(): Argument #1 ($connection) must be a connection id, which is 32 hexadecimal digits
ValueError: rt_close(): Argument #2 ($code) must be 1000 or from 3000 to 4999
ValueError: rt_close(): Argument #2 ($code) must be 1000 or from 3000 to 4999
ValueError: rt_close(): Argument #3 ($reason) must be at most 123 bytes of UTF-8
ValueError: rt_close(): Argument #3 ($reason) must be at most 123 bytes of UTF-8
TypeError: rt_close(): Argument #2 ($code) must be of type int, string given
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_close_error');
?>
