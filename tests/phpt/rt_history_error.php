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
