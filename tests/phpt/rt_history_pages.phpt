--TEST--
rt_history() page by page, to the past and to the present
--EXTENSIONS--
realtime
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_history_pages/hub.sock
realtime.threads=1
realtime.history_size=8
--FILE--
<?php
rt_listen();
for ($i = 1; $i <= 10; $i++) {
    rt_broadcast('chat', $i, id: $i % 2 ? "own-$i" : null);
}
$page = rt_history('chat', 3);
while ($page) {
    echo implode(' ', array_column($page, 'data')), "\n";
    $first = $page[0]['id'];
    rt_broadcast('other', 'meanwhile');
    $page = rt_history('chat', 3, before: $first);
}
echo "and back\n";
for ($last = $first; $page = rt_history('chat', 3, since: $last); $last = end($page)['id']) {
    echo implode(' ', array_column($page, 'data')), "\n";
}
foreach ([['since' => $last, 'before' => $last], ['before' => 'with space'], ['before' => 'unknown']] as $wrong) {
    try {
        rt_history('chat', 3, ...$wrong);
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}
?>
--EXPECT--
8 9 10
5 6 7
3 4
and back
4 5 6
7 8 9
10
ValueError: rt_history(): Argument #4 ($before) must be null when $since is given
ValueError: rt_history(): Argument #4 ($before) must be the id of a message
Realtime\Exception: the history of chat does not reach back to unknown any more, the oldest id kept is own-3
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_history_pages');
?>
