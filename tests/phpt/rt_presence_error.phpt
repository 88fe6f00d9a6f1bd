--TEST--
rt_presence(): what is wrong is said, also with what rt_on_subscribe() returned
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_presence_error/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

function attempt(callable $call): void
{
    try {
        var_dump($call());
    } catch (Throwable $e) {
        echo get_class($e), ': ', preg_replace('~/\S+/hub\.sock~', 'SOCKET', $e->getMessage()), "\n";
    }
}
attempt(fn() => rt_presence());
attempt(fn() => rt_presence(''));
attempt(fn() => rt_presence('presence-a b'));
attempt(fn() => rt_presence('chat'));
attempt(fn() => rt_presence('presence-a'));

final class Broken implements JsonSerializable
{
    public function jsonSerialize(): mixed
    {
        throw new DomainException('as asked');
    }
}
rt_on_subscribe(fn(Realtime\Connection $c, string $channel) => match ($channel) {
    'presence-1' => [],
    'presence-2' => ['user' => ''],
    'presence-3' => ['user' => str_repeat('x', 201)],
    'presence-4' => ['user' => ['x']],
    'presence-5' => ['user' => "a\nb"],
    'presence-6' => ['user' => 'x', 'info' => NAN],
    'presence-7' => ['user' => 'x', 'info' => new Realtime\Binary('x')],
    'presence-8' => ['user' => 'x', 'info' => new Broken()],
    'presence-9' => ['user' => 'x', 'info' => str_repeat('x', 2000)],
    'private-a' => ['user' => 'x'],
});
rt_on_error(fn($c, Throwable $e) => print(get_class($e) . ': ' . $e->getMessage() . "\n"));
$socket = new Socket(rt_listen(), '/ws');
$socket->receive();
foreach ([...array_map(fn($n) => "presence-$n", range(1, 9)), 'private-a'] as $channel) {
    $socket->send("{\"type\":\"subscribe\",\"channel\":\"$channel\"}");
    echo $socket->frame(), "\n";
}
?>
--EXPECT--
ArgumentCountError: rt_presence() expects exactly 1 argument, 0 given
ValueError: rt_presence(): Argument #1 ($channel) must be a channel name of 1 to 200 bytes, 0 given
ValueError: rt_presence(): Argument #1 ($channel) must be a channel name of letters, digits and _ - = @ , . ; : / ? & # % + ~ ! $ ( ) [ ] that does not begin with #, found ' '
ValueError: rt_presence(): Argument #1 ($channel) must be a presence channel, whose name begins with "presence-"
Realtime\Exception: no realtime server is running: nobody listens on the control socket SOCKET. Start one with rt_listen() and rt_run() in a `php` process of this user, or set realtime.socket to the socket of the one that runs
ValueError: rt_on_subscribe(): Return value of the handler must have a "user" of 1 to 200 bytes without control characters
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-1"}
ValueError: rt_on_subscribe(): Return value of the handler must have a "user" of 1 to 200 bytes without control characters
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-2"}
ValueError: rt_on_subscribe(): Return value of the handler must have a "user" of 1 to 200 bytes without control characters
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-3"}
ValueError: rt_on_subscribe(): Return value of the handler must have a "user" of 1 to 200 bytes without control characters
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-4"}
ValueError: rt_on_subscribe(): Return value of the handler must have a "user" of 1 to 200 bytes without control characters
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-5"}
ValueError: rt_on_subscribe(): Return value of the handler must have an "info" that is JSON-encodable: Inf and NaN cannot be JSON encoded
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-6"}
ValueError: rt_on_subscribe(): Return value of the handler must have an "info" that is JSON-encodable: it is binary
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-7"}
DomainException: as asked
{"type":"error","code":"forbidden","message":"not allowed","channel":"presence-8"}
{"type":"error","code":"too_large","message":"what others may know of this user is over realtime.presence_info","channel":"presence-9"}
{"type":"subscribed","channel":"private-a","id":"*"}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_presence_error');
?>
