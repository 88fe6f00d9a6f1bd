--TEST--
rt_update() where the names are those of Mercure 1.0
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_update_version/hub.sock
realtime.threads=1
realtime.mercure_subscriber_key="a-secret-of-at-least-32-bytes-of-text"
realtime.mercure_anonymous=1
realtime.mercure_version=1
realtime.mercure_url=https://hub.example/.well-known/mercure
realtime.mercure_issuer=https://shop.example
--FILE--
<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
foreach ([['mercure/subscriptions', 'id' => null], ['a', 'type' => 'mercure'], ['a', 'id' => 'earliest']] as $arguments) {
    try {
        rt_update(...$arguments);
    } catch (ValueError $e) {
        echo $e->getMessage(), "\n";
    }
}
$first = rt_update('https://shop.example/orders/1', 'one');
$id = rt_update('https://shop.example/orders/2', 'two');
$stream = stream_socket_client("tcp://$address");
$query = http_build_query(['match_urlpattern' => 'https://shop.example/orders/:id', 'last_event_id' => $first]);
fwrite($stream, "GET /.well-known/mercure?$query HTTP/1.0\r\nHost: $address\r\n\r\n");
$answer = '';
wait_for(function () use ($stream, &$answer) {
    $answer .= read_some($stream);
    return str_contains($answer, 'two');
});
var_dump(preg_match('/^mercure-last-event-id: (.*)\r$/mi', $answer, $found), $found[1] === $first);
var_dump(str_contains($answer, "id: $id\ndata: two\n\n"), str_contains($answer, 'data: one'));
?>
--EXPECT--
rt_update(): Argument #1 ($topics) must not name the hub's own topics, "mercure/subscriptions" given
rt_update(): Argument #5 ($type) must not be the hub's own "mercure"
rt_update(): Argument #4 ($id) must not begin with # or be "earliest"
int(1)
bool(true)
bool(true)
bool(false)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_update_version');
?>
