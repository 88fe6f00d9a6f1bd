--TEST--
rt_broadcast() is strict under strict_types
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_strict/hub.sock
realtime.threads=1
--FILE--
<?php
declare(strict_types=1);
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

final class Name { public function __toString(): string { return 'orders'; } }
rt_listen();
attempt(fn() => rt_broadcast(new Name, 1));
attempt(fn() => rt_broadcast(5, 1));
attempt(fn() => rt_broadcast('5', 1, store: 1));
attempt(fn() => rt_broadcast('5', 1, event: null));
attempt(fn() => rt_history('orders', '1'));
?>
--EXPECTF--
TypeError: rt_broadcast(): Argument #1 ($channel) must be of type array|string, Name given
TypeError: rt_broadcast(): Argument #1 ($channel) must be of type array|string, int given
TypeError: rt_broadcast(): Argument #6 ($store) must be of type bool, int given
TypeError: rt_broadcast(): Argument #3 ($event) must be of type string, null given
TypeError: rt_history(): Argument #2 ($limit) must be of type int, string given
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_strict');
?>
