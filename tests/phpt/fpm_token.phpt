--TEST--
tokens under PHP-FPM: a page signs, the handler knows the user, any process takes back
--EXTENSIONS--
realtime
--SKIPIF--
<?php
require __DIR__ . '/fpm.inc';
if (!fpm_binary()) echo 'skip there is no php-fpm of this PHP';
?>
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-fpm_token/hub.sock
realtime.threads=1
realtime.timeout=20
realtime.linger=0
realtime.secret=a-secret-of-the-tests-that-is-long-enough
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/fpm.inc';
$pool = new Pool('fpm_token', __DIR__ . '/fpm_token.inc');
$address = $pool->server();
$wait = fn() => usleep(1000);
$token = explode('token ', $pool->request(__DIR__ . '/fpm_token.inc'))[1];
$a = new Socket($address, '/ws', ['Cookie' => "realtime_token=$token"], $wait);
$a->receive();
foreach (['seven', 'asked', 'other'] as $channel) {
    $a->send("{\"type\":\"subscribe\",\"channel\":\"private-$channel\"}");
    echo $a->frame(), "\n";
}
$a->send('{"type":"publish","channel":"a","ref":1}');
echo $a->frame(), "\n";
echo rt_revoke('7'), ' ', $a->receive(), "\n";
echo (new Socket($address, "/ws?token=$token", [], $wait))->status, "\n";
// Nothing of it stands in a log.
echo str_contains((string) @file_get_contents($pool->log), $token) ? 'logged' : 'not logged', "\n";
?>
--EXPECT--
{"type":"subscribed","channel":"private-seven","id":"*"}
{"type":"subscribed","channel":"private-asked","id":"*"}
{"type":"error","code":"forbidden","message":"not allowed","channel":"private-other"}
{"type":"reply","ref":1,"data":{"user":"7","all":["7"]}}
1 close 4011 the token was revoked
401
not logged
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('fpm_token');
?>
