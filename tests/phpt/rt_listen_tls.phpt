--TEST--
with realtime.tls_cert clients speak TLS, and plain HTTP is told so
--EXTENSIONS--
realtime
openssl
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_listen_tls/hub.sock
realtime.tls_cert={TMP}/realtime-phpt-rt_listen_tls/cert.pem
realtime.tls_key={TMP}/realtime-phpt-rt_listen_tls/key.pem
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/tls.inc';
certificate(ini_get('realtime.tls_cert'), ini_get('realtime.tls_key'));
$address = rt_listen();
echo preg_replace('/\d+$/', 'PORT', $address), "\n";

function ask(string $transport, array $ssl = []): string
{
    global $address;
    $context = stream_context_create(['ssl' => $ssl + ['cafile' => ini_get('realtime.tls_cert'), 'peer_name' => 'test.example']]);
    $stream = stream_socket_client("$transport://$address", $code, $error, 60, STREAM_CLIENT_CONNECT, $context);
    fwrite($stream, "GET /healthz HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n");
    return preg_replace('~^HTTP/1.1 (\d+).*\r\n\r\n~s', '$1 ', stream_get_contents($stream));
}

echo ask('tlsv1.3'), "\n", ask('tlsv1.2'), "\n", ask('tcp');
rt_broadcast('a', 1);
echo rt_stats()['published'] ?? 'no count', "\n";
?>
--EXPECT--
127.0.0.1:PORT
200 {"status":"ok"}
200 {"status":"ok"}
400 {"error":{"code":"tls_required","message":"this address speaks TLS: use https:// or wss:// here"}}
1
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_listen_tls');
?>
