--TEST--
rt_on_subscribe(), rt_on_close() and rt_on_error() want a callable
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_subscribe_error/hub.sock
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

foreach (['rt_on_subscribe', 'rt_on_close', 'rt_on_error'] as $function) {
    attempt(fn() => $function());
    attempt(fn() => $function(42));
    attempt(fn() => $function([new stdClass, 'missing']));
}
?>
--EXPECTF--
ArgumentCountError: rt_on_subscribe() expects exactly 1 argument, 0 given
TypeError: rt_on_subscribe(): Argument #1 ($handler) must be a valid callback, no array or string given
TypeError: rt_on_subscribe(): Argument #1 ($handler) must be a valid callback, class stdClass does not have a method "missing"
ArgumentCountError: rt_on_close() expects exactly 1 argument, 0 given
TypeError: rt_on_close(): Argument #1 ($handler) must be a valid callback, no array or string given
TypeError: rt_on_close(): Argument #1 ($handler) must be a valid callback, class stdClass does not have a method "missing"
ArgumentCountError: rt_on_error() expects exactly 1 argument, 0 given
TypeError: rt_on_error(): Argument #1 ($handler) must be a valid callback, no array or string given
TypeError: rt_on_error(): Argument #1 ($handler) must be a valid callback, class stdClass does not have a method "missing"
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_subscribe_error');
?>
