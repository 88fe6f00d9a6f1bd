--TEST--
rt_broadcast() encodes as json_encode() does, and refuses what that refuses
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_data/hub.sock
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

enum Suit: string { case Hearts = 'H'; }
enum Plain { case One; }
final class Money implements JsonSerializable
{
    public function __construct(private Closure $as) {}
    public function jsonSerialize(): mixed { return ($this->as)(); }
}
$socket = new Socket(rt_listen(), '/raw/a');
$send = function (mixed $data) use ($socket): string {
    rt_broadcast('a', $data);
    return $socket->receive();
};
attempt(fn() => $send(Suit::Hearts));
attempt(fn() => $send(new Money(fn() => ['amount' => 3])));
attempt(fn() => $send(new Money(fn() => rt_broadcast('other', 1) !== '')));
attempt(fn() => $send(new Realtime\Binary("\x00\xff")));
attempt(fn() => $send("not UTF-8: \xff"));
echo "-- refused\n";
attempt(fn() => $send(NAN));
attempt(fn() => $send(['deep' => [INF]]));
attempt(fn() => $send(STDOUT));
attempt(fn() => $send(Plain::One));
attempt(fn() => $send(['key' => "\xff"]));
$loop = [];
$loop['self'] = &$loop;
attempt(fn() => $send($loop));
// PHP leaves a cycle of arrays lying at its end, which memcheck would tell.
unset($loop['self']);
$deep = 1;
for ($i = 0; $i < 600; $i++) {
    $deep = [$deep];
}
attempt(fn() => $send($deep));
attempt(fn() => $send(new Money(fn() => throw new LogicException('no rate'))));
attempt(fn() => $send(new Money(fn() => NAN)));
echo "-- as before\n";
json_decode('{');
attempt(fn() => $send('fine') . json_last_error());
?>
--EXPECTF--
"H"
"{\"amount\":3}"
"true"
"binary 00ff"
"binary 6e6f74205554462d383a20ff"
-- refused
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Inf and NaN cannot be JSON encoded
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Inf and NaN cannot be JSON encoded
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Type is not supported
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Non-backed enums have no default serialization
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Malformed UTF-8 characters, possibly incorrectly encoded
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Recursion detected
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Maximum stack depth exceeded
LogicException: no rate
ValueError: rt_broadcast(): Argument #2 ($data) must be JSON-encodable: Inf and NaN cannot be JSON encoded
-- as before
"fine4"
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_data');
?>
