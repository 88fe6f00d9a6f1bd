<?php
// Publishes a few messages, and tells the server's numbers.
ini_set('implicit_flush', '1');
for ($n = 0; $n < (int) $_GET['count']; $n++) {
    $text = str_repeat('x', mt_rand(0, 4) ? 100 : 2000);
    rt_broadcast('room-' . mt_rand(0, (int) $_GET['rooms'] - 1), ['n' => $n, 'text' => $text], store: (bool) mt_rand(0, 9));
}
foreach (array_filter(rt_stats(), 'is_int') as $name => $value) {
    echo "$name $value\n";
}
