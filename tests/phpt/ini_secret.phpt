--TEST--
no secret is in phpinfo(), ini_get_all(), statistics, answers or logs
--EXTENSIONS--
realtime
openssl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-ini_secret/hub.sock
realtime.threads=1
realtime.log={TMP}/realtime-phpt-ini_secret/realtime.log
realtime.log_level=trace
realtime.tls_cert={TMP}/realtime-phpt-ini_secret/cert.pem
realtime.tls_key={TMP}/realtime-phpt-ini_secret/key.pem
realtime.secret="first secret of realtime.secret that is long enough"
realtime.pusher_app="1:one:secret-of-app-one, 2:two:secret:of-app-two"
realtime.pusher_master_key="bWFzdGVyIGtleSBvZiBwdXNoZXIsIHRoaXJ0eS10d28="
realtime.pusher_webhook="http://webhook-user:webhook-password@127.0.0.1:1/hook"
realtime.mercure_subscriptions=1
realtime.mercure_publisher_key="secret of Mercure publishers that is long enough"
realtime.mercure_subscriber_key="secret of Mercure subscribers that is long enough"
--FILE--
<?php
require __DIR__ . '/client.inc';
require __DIR__ . '/secrets.inc';
require __DIR__ . '/tls.inc';
certificate(ini_get('realtime.tls_cert'), ini_get('realtime.tls_key'));
$key = file(ini_get('realtime.tls_key'), FILE_IGNORE_NEW_LINES)[1];
$address = rt_listen();

function ask(string $request, string $head = '', string $body = ''): string
{
    global $address;
    $context = stream_context_create(['ssl' => ['cafile' => ini_get('realtime.tls_cert'), 'peer_name' => 'test.example']]);
    $stream = stream_socket_client("tls://$address", $code, $error, 60, STREAM_CLIENT_CONNECT, $context);
    fwrite($stream, "$request HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\nContent-Length: " . strlen($body) . "\r\n$head\r\n$body");
    return (string) stream_get_contents($stream);
}

/** A token, and one that somebody else has signed. */
function tokens(string $secret, array $claims): array
{
    $text = fn(string $text) => strtr(trim(base64_encode($text), '='), '+/', '-_');
    $signed = $text('{"typ":"JWT","alg":"HS256"}') . '.' . $text(json_encode($claims + ['iat' => time(), 'exp' => time() + 60]));
    return array_map(fn($key) => "$signed." . $text(hash_hmac('sha256', $signed, $key, true)), [$secret, "not $secret"]);
}

$answers = [];
foreach (tokens(SECRETS[0], ['sub' => 'ada']) as $token) {
    $answers[] = ask("GET /poll?channel=a&timeout=0&token=$token");
}
foreach (tokens(SECRETS[5], ['mercure' => ['publish' => ['*']]]) as $token) {
    $form = "Authorization: Bearer $token\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    $answers[] = ask('POST /.well-known/mercure', $form, 'topic=a&data=1');
}
foreach (tokens(SECRETS[6], ['mercure' => ['subscribe' => ['*']]]) as $token) {
    $answers[] = ask('GET /.well-known/mercure/subscriptions', "Authorization: Bearer $token\r\n");
}
foreach ([SECRETS[2], 'another'] as $secret) {
    $query = 'auth_key=one&auth_timestamp=' . time() . '&auth_version=1.0';
    $signature = hash_hmac('sha256', "GET\n/apps/1/channels\n$query", $secret);
    $answers[] = ask("GET /apps/1/channels?$query&auth_signature=$signature");
}
$answers[] = ask('GET /apps/1/channels?auth_key=one&auth_signature=' . urlencode(SECRETS[2]));
echo implode(' ', array_map(fn($answer) => substr($answer, 9, 3), $answers)), "\n";

// A channel that is subscribed to is told to the webhook, which is not there; and then the key is damaged.
$context = stream_context_create(['ssl' => ['verify_peer' => false, 'verify_peer_name' => false]]);
$socket = stream_socket_client("tls://$address", context: $context);
fwrite($socket, "GET /app/one?protocol=7 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    . 'Sec-WebSocket-Key: ' . base64_encode(random_bytes(16)) . "\r\n\r\n");
$subscribe = '{"event":"pusher:subscribe","data":{"channel":"a"}}';
fwrite($socket, "\x81" . chr(0x80 | strlen($subscribe)) . "\0\0\0\0" . $subscribe);
file_put_contents(ini_get('realtime.tls_key'), "-----BEGIN PRIVATE KEY-----\n$key$key?\n-----END PRIVATE KEY-----\n");
$log = fn() => (string) file_get_contents(ini_get('realtime.log'));
foreach (['realtime.pusher_webhook does not take', 'certificate that was read before stays'] as $line) {
    var_dump(wait_for(fn() => str_contains($log(), $line)));
}

tell('log', $log(), $key);
tell('answers', implode("\n", $answers), $key);
tell('statistics', var_export(rt_stats(), true) . var_export(rt_connections(), true), $key);
tell_all();

// Values that are not taken, either.
$bad = ['secret' => 'short-one', 'pusher_app' => 'x:y:short-one', 'pusher_master_key' => base64_encode('short-one'),
    'mercure_publisher_key' => 'short-one', 'pusher_webhook' => 'ftp://short-one:short-one@host', 'mercure_url' => 'short-one@x:y'];
foreach ($bad as $name => $value) {
    $said = shell_exec(PHP_BINARY . ' -n -d extension=' . escapeshellarg(ini_get('extension_dir') . '/realtime.so')
        . ' -d display_errors=1 -d ' . escapeshellarg("realtime.$name=$value") . ' --ri realtime 2>&1');
    echo $name, ': ', preg_match("/realtime.$name must be/", $said), ' ';
    tell('said', $said, 'short-one');
}
?>
--EXPECT--
200 401 200 401 200 401 200 401 401
bool(true)
bool(true)
log: none
answers: none
statistics: none
phpinfo(): none
the extension: none
ini_get_all(): none
INI entries: none
ini_get(): none
secret: 1 said: none
pusher_app: 1 said: none
pusher_master_key: 1 said: none
mercure_publisher_key: 1 said: none
pusher_webhook: 1 said: none
mercure_url: 1 said: none
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('ini_secret');
?>
