<?php
// Publishes so many large messages, and tells the server's numbers.
ini_set('implicit_flush', '1');
for ($n = 0; $n < (int) $_GET['count']; $n++) {
    rt_broadcast('firehose', str_repeat('x', 16000), store: false);
}
$stats = rt_stats();
foreach (['connections', 'subscriptions', 'channels', 'handler_queued', 'history_bytes'] as $name) {
    echo "$name $stats[$name]\n";
}
