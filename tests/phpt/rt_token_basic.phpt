--TEST--
rt_token() signs who a client is and what is open to it
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_token_basic/hub.sock
realtime.threads=1
realtime.secret=a-secret-of-the-tests-that-is-long-enough
realtime.token_audience=chat
--FILE--
<?php
require __DIR__ . '/client.inc';
$token = rt_token(['sub' => 42, 'channels' => ['private-user.42', 'presence-*'], 'info' => ['name' => 'Ada'], 'role' => 'x'], 60);
[$head, $claims, $signature] = array_map(fn($part) => base64_decode(strtr($part, '-_', '+/')), explode('.', $token));
echo $head, "\n";
$claims = json_decode($claims, true);
echo json_encode(array_diff_key($claims, ['iat' => 1, 'exp' => 1, 'rt_clock' => 1])), "\n";
var_dump(round($claims['exp'] - $claims['iat']), abs(microtime(true) - $claims['iat']) < 10);
$signed = substr($token, 0, strrpos($token, '.'));
var_dump($signature === hash_hmac('sha256', $signed, get_cfg_var('realtime.secret'), true));

rt_on_open(function (Realtime\Connection $c) {
    echo 'open ', json_encode($c->user), "\n";
});
$address = rt_listen();
$ada = new Socket($address, "/ws?token=$token");
$ada->frame();
$ada->send('{"type":"subscribe","channel":"private-user.42"}');
echo $ada->frame(), "\n";
$ada->send('{"type":"subscribe","channel":"private-user.43"}');
echo $ada->frame(), "\n";
$nobody = new Socket($address, '/ws');
$wrong = new Socket($address, "/ws?token={$token}x");
echo $wrong->status, "\n";
foreach (rt_connections('private-user.42') as $c) {
    var_dump($c->user);
}
?>
--EXPECT--
{"typ":"JWT","alg":"HS256"}
{"aud":"chat","channels":["private-user.42","presence-*"],"info":{"name":"Ada"},"role":"x","sub":42}
float(60)
bool(true)
bool(true)
open "42"
{"type":"subscribed","channel":"private-user.42","id":"*"}
{"type":"error","code":"forbidden","message":"not allowed","channel":"private-user.43"}
open null
401
string(2) "42"
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_token_basic');
?>
