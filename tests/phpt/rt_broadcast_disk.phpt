--TEST--
With realtime.history=disk everything that rt_broadcast() has acknowledged outlives a kill -9
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_broadcast_disk/hub.sock
realtime.threads=1
realtime.history=disk
realtime.data_dir={TMP}/realtime-phpt-rt_broadcast_disk
realtime.history_size=40
--FILE--
<?php
require __DIR__ . '/client.inc';

// One server after the other, each in a process of its own that ends without a chance to write anything.
[$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
stream_set_timeout($ours, (int) slow(30));
$killed = function (callable $work) use ($ours, $theirs): array {
    if (($pid = pcntl_fork()) === 0) {
        rt_listen();
        fwrite($theirs, json_encode($work()) . "\n");
        sleep((int) slow(60));
        exit(1);
    }
    $said = fgets($ours);
    // From here: of one that kills itself, memcheck would look for what its threads were at just then.
    posix_kill($pid, SIGKILL);
    pcntl_waitpid($pid, $status);
    var_dump(pcntl_wifsignaled($status) && pcntl_wtermsig($status) === SIGKILL);
    return json_decode($said, true);
};

$ids = $killed(fn() => [
    ...array_map(fn($i) => rt_broadcast('orders', ['number' => $i, 'text' => "\u{1F600}"]), range(1, 50)),
    rt_broadcast('orders', new Realtime\Binary("\x00\xff"), event: 'bytes', id: 'mine'),
    rt_broadcast('orders', 'not kept', store: false),
]);
echo count($ids), ' ', count(array_unique($ids)), "\n";

[$all, $since, $bytes, $last, $again, $subscribed] = $killed(function () use ($ids) {
    $socket = new Socket(rt_stats()['address'], '/ws');
    $socket->receive();
    $socket->send(json_encode(['type' => 'subscribe', 'channel' => 'orders', 'since' => $ids[47]]));
    $subscribed = json_decode($socket->receive(), true);
    // The newest is bytes, which JSON could not carry back.
    $entries = rt_history('orders');
    $newest = array_pop($entries);
    return [
        $entries,
        array_column(rt_history('orders', since: $ids[47]), 'id'),
        [bin2hex($newest['data']), $newest['event'], $newest['id']],
        rt_broadcast('orders', 'of the second'),
        rt_broadcast('orders', 'known already', id: 'mine'),
        $subscribed,
    ];
});
echo implode(' ', array_column(array_column($all, 'data'), 'number')), ' ', $all[0]['data']['text'], "\n";
var_dump(array_column($all, 'id') === array_slice($ids, 11, 39), $since === array_slice($ids, 48, 3));
echo implode(' ', $bytes), "\n";
echo 'recovered: ', json_encode($subscribed['recovered']), "\n";
// The number of what was not kept is never given again.
$number = fn(string $id): int => (int) explode('-', $id)[1];
echo $number($last) - $number($ids[51]), ' ', explode('-', $last)[0] === explode('-', $ids[51])[0] ? 'same' : 'other', " epoch\n";
echo $again, "\n";

[$data] = $killed(fn() => [array_column(array_slice(rt_history('orders'), -1), 'data')]);
echo json_encode($data), "\n";
?>
--EXPECT--
bool(true)
52 52
bool(true)
12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 😀
bool(true)
bool(true)
00ff bytes mine
recovered: true
1 same epoch
mine
bool(true)
["of the second"]
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_broadcast_disk');
?>
