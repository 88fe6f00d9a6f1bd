<?php
// Publishes a few messages, and tells the server's numbers.
ini_set('implicit_flush', '1');
[$rooms, $guarded] = [(int) $_GET['rooms'], (int) $_GET['guarded']];
for ($n = 0; $n < (int) $_GET['count']; $n++) {
    $text = str_repeat('x', mt_rand(0, 4) ? 100 : 2000);
    $room = match (mt_rand(0, 9)) {
        0 => 'private-' . mt_rand(0, $guarded - 1),
        1 => 'presence-' . mt_rand(0, $guarded - 1),
        default => 'room-' . mt_rand(0, $rooms - 1),
    };
    rt_broadcast($room, ['n' => $n, 'text' => $text], store: (bool) mt_rand(0, 9));
}
$stats = rt_stats();
$stats['tasks'] = array_sum($stats['tasks']);
$stats['members'] = array_sum(array_map(fn($room) => count(rt_presence("presence-$room")), range(0, $guarded - 1)));
foreach (array_filter($stats, 'is_int') as $name => $value) {
    echo "$name $value\n";
}
