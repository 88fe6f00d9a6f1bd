<?php
require __DIR__ . '/client.inc';

rt_on_open(function (Realtime\Connection $c) {
    echo "first: $c->transport $c->ip $c->path ", json_encode($c->query), ' ', json_encode($c->cookies), "\n";
});
rt_on_open(fn($c) => ($c->query['token'] ?? '') === 'good');
rt_on_open(fn($c) => print("third\n"));
$address = rt_listen();
$headers = ['Cookie' => 'session=a%20b; theme=dark'];
echo (new Socket($address, '/raw/chat?token=good', $headers))->status, "\n";
echo (new Socket($address, '/raw/chat?token=bad&list[]=1&list[]=2'))->status, "\n";
echo count(rt_connections()), "\n";
?>
