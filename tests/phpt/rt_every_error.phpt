--TEST--
rt_every() and rt_after() refuse times that are none
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_every_error/hub.sock
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

foreach ([NAN, INF, -0.1, 0] as $seconds) {
    attempt(fn() => rt_every($seconds, fn() => 1));
}
foreach ([NAN, -1] as $seconds) {
    attempt(fn() => rt_after($seconds, fn() => 1));
}
attempt(fn() => rt_every(1, 'no_such_function'));
attempt(fn() => rt_after(1));
// The loop goes on after a callback that throws.
rt_after(0, fn() => throw new DomainException('from a timer'));
rt_after(0.01, function () {
    echo "next\n";
    rt_stop();
});
rt_run(5);
?>
--EXPECTF--
ValueError: rt_every(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_every(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_every(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_every(): Argument #1 ($seconds) must be greater than 0
ValueError: rt_after(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
ValueError: rt_after(): Argument #1 ($seconds) must be a number of seconds from 0 to 3155760000
TypeError: rt_every(): Argument #2 ($callback) must be a valid callback, function "no_such_function" not found or invalid function name
ArgumentCountError: rt_after() expects exactly 2 arguments, 1 given

Warning: rt_run(): Uncaught DomainException: from a timer in %a
  thrown in a timer's callback in %s on line %d
next
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_every_error');
?>
