<?php
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

$taken = stream_socket_server('tcp://127.0.0.1:0');
$address = stream_socket_get_name($taken, false);
attempt(fn() => rt_listen($address));
attempt(fn() => rt_broadcast('a', 1));
?>
