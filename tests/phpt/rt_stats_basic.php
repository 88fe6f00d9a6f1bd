<?php
require __DIR__ . '/client.inc';

$address = rt_listen();
$socket = new Socket($address, '/raw/chat');
rt_broadcast('chat', 'x');
$socket->receive();
$stats = rt_stats();
foreach ($stats as $name => $value) {
    echo "$name: ", get_debug_type($value), "\n";
}
echo json_encode($stats['by_transport']), "\n";
var_dump($stats['pid'] === getmypid(), $stats['address'] === $address);
var_dump($stats['connections'], $stats['channels'], $stats['subscriptions'], $stats['published'], $stats['delivered'], $stats['shards']);
?>
