<?php
// Publishes numbered messages, and says of each whether it was acknowledged, before the next.
ini_set('implicit_flush', '1');
echo 'pid ', getmypid(), "\n";
for ($n = (int) $_GET['from'], $end = $n + (int) $_GET['count']; $n < $end; $n++) {
    try {
        $id = rt_broadcast('faults', "$_GET[publisher] $n");
        echo "ok $n $id\n";
    } catch (Realtime\Exception $e) {
        echo "failed $n ", $e->getMessage(), "\n";
    }
    flush();
}
