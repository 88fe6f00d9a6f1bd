--TEST--
rt_listen() says what is wrong with an address, or that it listens on another
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_error/hub.sock
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

foreach (['', '8080', 'localhost', 'unix:relative', '::1:80', 'a b:80', 'host:99999', "\xff:1"] as $address) {
    attempt(fn() => rt_listen($address));
}
attempt(fn() => rt_listen('256.0.0.1:80'));
$address = rt_listen();
attempt(fn() => rt_listen('127.0.0.1:1'));
attempt(fn() => rt_listen($address) === $address);
?>
--EXPECTF--
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
ValueError: rt_listen(): Argument #1 ($address) must be host:port, [ipv6]:port or unix:/path
Realtime\Exception: cannot listen on 256.0.0.1:80 (realtime.listen): %s
Realtime\Exception: the server of this process listens on 127.0.0.1:%d already
true
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_error');
?>
