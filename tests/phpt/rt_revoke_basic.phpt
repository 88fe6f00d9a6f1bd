--TEST--
rt_disconnect() closes a user's connections, rt_revoke() also takes its tokens back
--EXTENSIONS--
realtime
pcntl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_revoke_basic/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.secret=a-secret-of-the-tests-that-is-long-enough
--FILE--
<?php
require __DIR__ . '/client.inc';
$address = rt_listen();
$open = fn(string $token) => new Socket($address, "/ws?token=$token");
$close = function (Socket $socket) {
    do {
        $frame = $socket->receive();
    } while (str_starts_with($frame, '{"type":"welcome"'));
    echo $frame, "\n";
};
$first = rt_token(['sub' => 'ada', 'n' => 1]);
$second = rt_token(['sub' => 'ada', 'n' => 2]);
[$a, $b, $c] = [$open($first), $open($first), $open($second)];
var_dump(rt_disconnect('ada', 4100, 'lunch'), rt_disconnect('nobody'));
array_map($close, [$a, $b, $c]);
[$a, $b] = [$open($first), $open($second)];
var_dump(rt_revoke(token: $first));
$close($a);
echo $open($first)->status, ' ', $open($second)->status, "\n";
var_dump(rt_revoke('ada') >= 1);
$close($b);
echo $open($second)->status, ' ', $open(rt_token(['sub' => 'ada']))->status, "\n";
// From another process.
$bob = rt_token(['sub' => 'bob']);
$b = $open($bob);
if (pcntl_fork() === 0) {
    var_dump(rt_revoke(user: 'bob'));
    exit;
}
pcntl_wait($status);
$close($b);
echo $open($bob)->status, "\n";
foreach ([[], ['a', 'b'], [''], [null, 'x'], [str_repeat('x', 201)]] as $arguments) {
    try {
        rt_revoke(...$arguments);
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}
?>
--EXPECT--
int(3)
int(0)
close 4100 lunch
close 4100 lunch
close 4100 lunch
int(1)
close 4011 the token was revoked
401 101
bool(true)
close 4011 the token was revoked
401 101
int(1)
close 4011 the token was revoked
401
ValueError: rt_revoke() takes either a user or a token
ValueError: rt_revoke() takes either a user or a token
ValueError: rt_revoke(): Argument #1 ($user) must be a user: 1 to 200 bytes of UTF-8 without control characters
Realtime\Exception: this is not a token: it must be a JSON Web Token, three parts in base64 with dots between them
ValueError: rt_revoke(): Argument #1 ($user) must be a user: 1 to 200 bytes of UTF-8 without control characters
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_revoke_basic');
?>
