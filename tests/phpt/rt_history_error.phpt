--TEST--
rt_history() says what is wrong, and when it does not reach back
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_history_error/hub.sock
realtime.threads=1
realtime.history_size=2
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

rt_listen();
attempt(fn() => rt_history(''));
attempt(fn() => rt_history('chat', 0));
attempt(fn() => rt_history('chat', 1000001));
attempt(fn() => rt_history('chat', 1, ''));
attempt(fn() => rt_history('chat', 1, 'with space'));
$first = rt_broadcast('chat', 0);
for ($i = 1; $i < 5; $i++) {
    rt_broadcast('chat', $i);
}
attempt(fn() => rt_history('chat', since: $first));
attempt(fn() => rt_history('chat', since: '00000000-1'));
?>
--EXPECTF--
ValueError: rt_history(): Argument #1 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_history(): Argument #2 ($limit) must be 1 to 1000000
ValueError: rt_history(): Argument #2 ($limit) must be 1 to 1000000
ValueError: rt_history(): Argument #3 ($since) must be the id of a message
ValueError: rt_history(): Argument #3 ($since) must be the id of a message
Realtime\Exception: the history of chat does not reach back to %x-1 any more, the oldest id kept is %x-4
Realtime\Exception: the history of chat does not reach back to 00000000-1 any more, the oldest id kept is %x-4
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_history_error');
?>
