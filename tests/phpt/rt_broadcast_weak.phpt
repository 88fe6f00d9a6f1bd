--TEST--
rt_broadcast() takes what PHP functions take without strict_types
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_weak/hub.sock
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

final class Name { public function __toString(): string { return 'orders'; } }
rt_listen();
attempt(fn() => rt_broadcast(new Name, 1) !== '');
attempt(fn() => rt_broadcast(5, 1, store: 1) !== '');
attempt(fn() => count(rt_history('orders')) + count(rt_history('5')));
attempt(fn() => rt_history('orders', '1')[0]['data']);
?>
--EXPECTF--
true
true
2
1
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_weak');
?>
