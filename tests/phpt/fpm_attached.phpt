--TEST--
php worker.php takes the events of PHP-FPM's server, and shares them with others
--EXTENSIONS--
realtime
--SKIPIF--
<?php
require __DIR__ . '/fpm.inc';
if (!fpm_binary()) echo 'skip there is no php-fpm of this PHP';
?>
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-fpm_attached/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.linger=0
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/fpm.inc';
$pool = new Pool('fpm_attached', __DIR__ . '/fpm_handler.inc');
$address = $pool->server();
$wait = fn() => usleep(1000);
$worker = function (string $loop) use (&$pipes) {
    $command = [PHP_BINARY, '-n', '-d', 'extension=' . ini_get('extension_dir') . '/realtime.so', '-d',
        'realtime.socket=' . ini_get('realtime.socket'), __DIR__ . '/fpm_attached.inc', $loop];
    return proc_open($command, [1 => ['pipe', 'w']], $pipes);
};
$pid = fn($process) => proc_get_status($process)['pid'];
$ref = 0;
$ask = function (Socket $s, string $data, bool $answered = true) use (&$ref) {
    $ref++;
    $s->send(json_encode(['type' => 'publish', 'channel' => 'a', 'data' => $data, 'ref' => $ref]));
    while ($answered) {
        $frame = json_decode($s->receive(), true);
        if (($frame['ref'] ?? null) === $ref) {
            return $frame['data'] ?? $frame['code'] ?? null;
        }
    }
};
/** Asks until $process answers. */
$reach = function (Socket $s, $process) use ($ask, $pid, $wait) {
    wait_for(fn() => ($ask($s, 'who')[0] ?? null) === $pid($process), $wait);
};

$a = new Socket($address, '/ws', [], $wait);
$a->receive();
$a->send('{"type":"subscribe","channel":"begun"}');
$a->receive();
echo $ask($a, 'count'), "\n";
$first = $worker('run');
$pipe = $pipes[1];
$reach($a, $first);
// The state that the pool's handler has left goes on.
echo $ask($a, 'who')[1] > 2 ? "goes on\n" : "begins anew\n";
var_dump(wait_for(fn() => $ask($a, 'ticks'), $wait), $ask($a, 'listen'));
echo rt_history('errors')[0]['data'], "\n";

// Two of them share; each connection's events stay in order.
$second = $worker('own');
$sockets = [];
for ($i = 0; $i < 8; $i++) {
    $sockets[] = $s = new Socket($address, '/ws', [], $wait);
    $s->receive();
}
$by = [];
wait_for(function () use (&$by, $sockets, $ask) {
    foreach ($sockets as $i => $s) {
        [$who, $count] = $ask($s, 'who');
        $by[$who][] = $count;
    }
    return count($by) === 2;
}, $wait);
ksort($by);
$both = [$pid($first), $pid($second)];
sort($both);
var_dump(array_keys($by) === $both);
foreach ($sockets as $i => $s) {
    for ($n = 0; $n < 50; $n++) {
        $ref++;
        $s->send(json_encode(['type' => 'publish', 'channel' => 'a', 'data' => 'who', 'ref' => $ref]));
    }
}
$ordered = true;
foreach ($sockets as $s) {
    $last = 0;
    for ($n = 0; $n < 50; $n++) {
        $count = json_decode($s->receive(), true)['data'][1];
        $ordered = $ordered && $count > $last;
        $last = $count;
    }
}
var_dump($ordered);

// One is killed while it handles a message: another handles it.
$ask($a, 'slow', false);
$victim = json_decode($a->receive(), true)['data'];
$go = dirname(ini_get('realtime.socket')) . '/go';
proc_terminate($victim === $pid($first) ? $first : $second, 9);
touch($go);
$left = $victim === $pid($first) ? $second : $first;
do {
    $frame = json_decode($a->receive(), true);
} while (($frame['ref'] ?? null) !== $ref);
var_dump($frame['data'] === $pid($left));

// One that is told to stop answers what it has begun, and the pool takes over again.
proc_terminate($left, 9);
$third = $worker('run');
$reach($a, $third);
unlink($go);
$ask($a, 'slow', false);
$a->receive();
proc_terminate($third);
touch($go);
do {
    $frame = json_decode($a->receive(), true);
} while (($frame['ref'] ?? null) !== $ref);
var_dump($frame['data'] === $pid($third));
echo stream_get_contents($pipes[1]);
echo is_int($ask($a, 'count')) ? "the pool again\n" : "lost\n";
?>
--EXPECT--
1
goes on
bool(true)
string(14) "handler_failed"
this process handles the events of a realtime server in another process, so it cannot be one
bool(true)
bool(true)
bool(true)
bool(true)
handled some
the pool again
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('fpm_attached');
?>
