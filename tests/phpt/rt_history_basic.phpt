--TEST--
rt_history() gives the newest messages, or those after an id
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_history_basic/hub.sock
realtime.threads=1
--FILE--
<?php
rt_listen();
var_dump(rt_history('chat'));
$ids = [];
foreach (['one', ['two' => 2], new Realtime\Binary("\xff"), null] as $data) {
    $ids[] = rt_broadcast('chat', $data, 'said');
}
rt_broadcast('chat', 'not kept', store: false);
foreach (rt_history('chat') as $i => $entry) {
    var_dump($entry['id'] === $ids[$i], $entry['event'], $entry['age'] >= 0 && $entry['age'] < 5);
    echo get_debug_type($entry['data']), ' ', is_object($entry['data']) ? bin2hex($entry['data']) : json_encode($entry['data']), "\n";
}
echo count(rt_history('chat', 2)), ' ', rt_history('chat', 2)[1]['id'] === $ids[3] ? 'newest' : 'other', "\n";
echo json_encode(array_column(rt_history('chat', since: $ids[2]), 'id') === [$ids[3]]), "\n";
echo json_encode(rt_history('chat', since: $ids[3])), "\n";
?>
--EXPECTF--
array(0) {
}
bool(true)
string(4) "said"
bool(true)
string "one"
bool(true)
string(4) "said"
bool(true)
array {"two":2}
bool(true)
string(4) "said"
bool(true)
Realtime\Binary ff
bool(true)
string(4) "said"
bool(true)
null null
2 newest
true
[]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_history_basic');
?>
