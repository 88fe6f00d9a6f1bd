<?php
/*
 * The publisher of the figures under PHP-FPM: one request for each line, in its query, with the file from which signals
 * are read and the number of the next message.
 */
declare(strict_types=1);

require __DIR__ . '/publishing.php';

$sequence = (int) $_GET['first'];
if ($_GET['line'] === 'who') {
    $stats = rt_stats();
    $done = [getmypid(), $stats['pid'], $stats['address']];
} elseif ($_GET['line'] === 'requests') {
    $done = [rt_stats()['handler_requests']];
} else {
    $signals = fopen($_GET['signals'], 'r');
    stream_set_read_buffer($signals, 0);
    $done = obey($_GET['line'], $signals);
}
echo 'DONE ', implode(' ', $done), "\n";
