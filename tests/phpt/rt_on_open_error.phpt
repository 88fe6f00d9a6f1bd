--TEST--
an rt_on_open() handler that throws lets nobody in
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_open_error/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

attempt(fn() => rt_on_open('no_such_function'));
rt_on_open(fn() => throw new RuntimeException('the database is down'));
echo (new Socket(rt_listen(), '/raw/chat'))->status, "\n";
rt_on_error(fn($c, $e) => print(get_class($c) . ' ' . $e->getMessage() . "\n"));
echo (new Socket(rt_listen(), '/raw/chat'))->status, "\n";
?>
--EXPECTF--
TypeError: rt_on_open(): Argument #1 ($handler) must be a valid callback, function "no_such_function" not found or invalid function name

Warning: rt_run(): Uncaught RuntimeException: the database is down in %srt_on_open_error.php:%d
Stack trace:
#0 [internal function]: {closure}(Object(Realtime\Connection))
#1 %sclient.inc(%d): rt_run(0.01)
%a
  thrown in an rt_on_open() handler in %sclient.inc on line %d
403
Realtime\Connection the database is down
403
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_open_error');
?>
