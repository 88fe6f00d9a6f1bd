--TEST--
rt_stats() gives the server's numbers
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_stats_basic/hub.sock
realtime.threads=1
--FILE--
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
// The server's own, the connection's and the acceptor's.
echo implode(' ', array_keys($stats['tasks'])), ' ', min($stats['tasks']) > 0 ? 'have tasks' : 'have none', "\n";
var_dump($stats['pid'] === getmypid(), $stats['address'] === $address);
var_dump($stats['connections'], $stats['channels'], $stats['subscriptions'], $stats['published'], $stats['delivered'], $stats['shards']);
?>
--EXPECTF--
uptime: float
pid: int
address: string
connections: int
connections_total: int
by_transport: array
channels: int
subscriptions: int
published: int
delivered: int
received: int
dropped_slow: int
history_messages: int
history_bytes: int
shards: int
handler_queued: int
handler_requests: int
handler_retried: int
handler_failed: int
tasks: array
{"websocket":0,"raw":1,"sse":0,"stream":0,"poll":0,"http":0,"pusher":0}
control shard-0 have tasks
bool(true)
bool(true)
int(1)
int(1)
int(1)
int(1)
int(1)
int(1)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_stats_basic');
?>
