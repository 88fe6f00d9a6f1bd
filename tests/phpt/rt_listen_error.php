<?php
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

foreach (['', '8080', 'localhost', 'unix:relative', '::1:80', 'a b:80', 'host:99999', "\xff:1"] as $address) {
    attempt(fn() => rt_listen($address));
}
attempt(fn() => rt_listen('256.0.0.1:80'));
$address = rt_listen();
attempt(fn() => rt_listen('127.0.0.1:1'));
attempt(fn() => rt_listen($address) === $address);
?>
