--TEST--
PHP-FPM runs realtime.handler for what clients do, whatever it does there
--EXTENSIONS--
realtime
--SKIPIF--
<?php
require __DIR__ . '/fpm.inc';
if (!fpm_binary()) echo 'skip there is no php-fpm of this PHP';
?>
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-fpm_handler/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.linger=0
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/fpm.inc';
@unlink(sys_get_temp_dir() . '/sess_realtimephpt');
$pool = new Pool('fpm_handler', __DIR__ . '/fpm_handler.inc');
$address = $pool->server();
$wait = fn() => usleep(1000);
$a = new Socket($address, '/ws?a=1', ['Cookie' => 'who=me'], $wait);
$a->receive();
$b = new Socket($address, '/ws', [], $wait);
$b->receive();
echo (new Socket($address, '/ws?no', [], $wait))->status, "\n";
$ref = 0;
$ask = function (Socket $s, string $data) use (&$ref): string {
    $ref++;
    $s->send(json_encode(['type' => 'publish', 'channel' => 'a', 'data' => $data, 'ref' => $ref]));
    do {
        $frame = json_decode($s->receive(), true);
    } while (($frame['ref'] ?? null) !== $ref);
    return json_encode($frame['data'] ?? $frame['code'] ?? null, JSON_UNESCAPED_SLASHES);
};
echo $ask($a, 'count'), $ask($a, 'count'), $ask($b, 'count'), $ask($a, 'count'), "\n";
foreach (['private-me', 'private-you'] as $channel) {
    $a->send("{\"type\":\"subscribe\",\"channel\":\"$channel\"}");
    echo $a->frame(), "\n";
}
foreach (['request', 'session', 'session', 'print', 'finish', 'publish', 'early', 'exit', 'throw', 'memory', 'time', 'timer', 'listen', 'stream', 'stop'] as $what) {
    echo "$what ", $ask($a, $what), "\n", $pool->logged();
    $ask($b, 'count');
}
// What comes while one is handled goes as one batch: the first of them ends the script, the rest are handled all the same.
foreach (['time', 'count', 'exit', 'count', 'throw', 'count'] as $i => $data) {
    $a->send(json_encode(['type' => 'publish', 'channel' => 'a', 'data' => $data, 'ref' => "r$i"]));
}
for ($i = 0; $i < 6; $i++) {
    $frame = json_decode($a->receive(), true);
    echo $frame['ref'], ' ', $frame['data'] ?? $frame['code'], "\n";
}
$pool->logged();
// Nobody else can.
foreach ([[], ['REALTIME_SECRET' => ''], ['REALTIME_SECRET' => str_repeat('0', 32)], ['HTTP_REALTIME_SECRET' => 'x']] as $params) {
    echo explode("\r\n", $pool->request(__DIR__ . '/fpm_handler.inc', $params))[0], "\n", $pool->logged();
}
$a->send(pack('n', 1000), 8);
wait_for(fn() => str_contains((string) file_get_contents($pool->log), 'closed'), $wait);
echo $pool->logged();
?>
--EXPECT--
403
1213
{"type":"subscribed","channel":"private-me","id":"*"}
{"type":"error","code":"forbidden","message":"not allowed","channel":"private-you"}
request ["127.0.0.1",{"who":"me"},{"a":"1"},false]
session [1,false]
session [2,false]
print "printed"
finish false
publish true
early "early"
exit "handler_failed"
throw "handler_failed"
PHP Warning:  rt_run(): Uncaught LogicException: thrown
memory "handler_failed"
PHP Fatal error:  Allowed memory size of 8388608 bytes exhausted (tried to allocate 268439552 bytes)
time "handler_failed"
PHP Fatal error:  Maximum execution time of 1 second exceeded
timer "handler_failed"
PHP Warning:  rt_run(): Uncaught Realtime\Exception: a timer was set in a web request, which ends before it would run: set it in `php worker.php`, which rt_run() keeps running
listen "handler_failed"
PHP Warning:  rt_run(): Uncaught Realtime\Exception: rt_listen() was called in a web request, where the server is a process of its own (see realtime.autostart): call it in `php worker.php`
stream "handler_failed"
PHP Warning:  rt_run(): Uncaught Realtime\Exception: rt_stream() was called in a web request, which has no event loop: call rt_run()
stop "stopping"
r0 handler_failed
r1 4
r2 handler_failed
r3 5
r4 handler_failed
r5 6
Status: 500 Internal Server Error
PHP Fatal error:  Uncaught Realtime\Exception: this request is not from the realtime server: it runs realtime.handler by itself when clients do something, and nobody else can
Status: 500 Internal Server Error
PHP Fatal error:  Uncaught Realtime\Exception: this request is not from the realtime server: it runs realtime.handler by itself when clients do something, and nobody else can
Status: 500 Internal Server Error
PHP Fatal error:  Uncaught Realtime\Exception: this request has a wrong REALTIME_SECRET: it is not from the realtime server of this PHP
Status: 500 Internal Server Error
PHP Fatal error:  Uncaught Realtime\Exception: this request is not from the realtime server: it runs realtime.handler by itself when clients do something, and nobody else can
closed 1000 {"count":6}
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('fpm_handler');
@unlink(sys_get_temp_dir() . '/sess_realtimephpt');
?>
