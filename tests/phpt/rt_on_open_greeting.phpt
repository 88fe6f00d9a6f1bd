--TEST--
An rt_on_open() handler may send to, subscribe and close the connection that it lets in
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_open_greeting/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_open(function (Realtime\Connection $c) {
    var_dump($c->send(['hello' => $c->transport]));
    var_dump($c->subscribe('news'));
    if (isset($c->query['bye'])) {
        var_dump($c->close(4321, 'not today'));
    }
    return !isset($c->query['no']);
});
$address = rt_listen();
$native = new Socket($address, '/ws');
echo json_decode($native->frame())->type, "\n", $native->frame(), "\n";
echo preg_replace('/"id":"[^"]+"/', '"id":"…"', $native->frame()), "\n";
$raw = new Socket($address, '/raw/chat');
echo $raw->receive(), "\n";
rt_broadcast('news', 'to both');
echo json_decode($native->frame())->data, ' ', $raw->receive(), "\n";
echo explode("\r\n\r\n", http($address, 'GET /poll?channel=a&timeout=5'))[1], "\n";
echo (new Socket($address, '/ws?no'))->status, "\n";
echo bin2hex((new Socket($address, '/raw/chat?bye'))->receive()) === '' ? '' : "greeted before the end\n";
?>
--EXPECTF--
bool(true)
bool(true)
welcome
{"type":"message","event":"message","data":{"hello":"websocket"}}
{"type":"subscribed","channel":"news","id":"…"}
bool(true)
bool(true)
{"hello":"raw"}
to both to both
bool(true)
bool(true)
{"messages":[{"type":"message","event":"message","data":{"hello":"poll"}}],"cursor":"%s"}
bool(true)
bool(true)
403
bool(true)
bool(true)
bool(true)
greeted before the end
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_open_greeting');
?>
