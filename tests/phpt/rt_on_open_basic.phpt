--TEST--
rt_on_open() handlers are asked in order, and any of them refuses
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_on_open_basic/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

rt_on_open(function (Realtime\Connection $c) {
    echo "first: $c->transport $c->ip $c->path ", json_encode($c->query), ' ', json_encode($c->cookies), "\n";
});
rt_on_open(fn($c) => ($c->query['token'] ?? '') === 'good');
rt_on_open(fn($c) => print("third\n"));
$address = rt_listen();
$headers = ['Cookie' => 'session=a%20b; theme=dark'];
$socket = new Socket($address, '/raw/chat?token=good', $headers);
echo $socket->status, "\n";
echo (new Socket($address, '/raw/chat?token=bad&list[]=1&list[]=2'))->status, "\n";
echo count(rt_connections()), "\n";
?>
--EXPECTF--
first: raw 127.0.0.1 /raw/chat {"token":"good"} {"session":"a b","theme":"dark"}
third
101
first: raw 127.0.0.1 /raw/chat {"token":"bad","list":["1","2"]} []
403
1
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_on_open_basic');
?>
