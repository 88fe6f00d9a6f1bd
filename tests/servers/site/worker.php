<?php
// php worker.php NAME: handles what clients do, attached to the server that PHP-FPM has started.
$name = $argv[1];
$note = fn (string $line) => file_put_contents(__DIR__ . '/worker.txt', "$name $line\n", FILE_APPEND | LOCK_EX);

rt_on_subscribe(fn (Realtime\Connection $c, string $channel) => $channel !== 'closed');
rt_on_message(function (Realtime\Message $m) use ($name, $note) {
    $c = $m->from;
    switch ($m->event) {
        case 'die':
            // Without a word, once: the next worker that gets it answers.
            if (!file_exists(__DIR__ . '/died.txt')) {
                touch(__DIR__ . '/died.txt');
                $note("dies $m->data");
                posix_kill(getmypid(), SIGKILL);
            }
            break;
        case 'slow':
            usleep((int) ($m->data * 1e6));
            break;
        case 'wait':
            // Until the test has made the file.
            file_put_contents("$m->data.begun", "$name\n", FILE_APPEND | LOCK_EX);
            while (!file_exists($m->data)) {
                usleep(5000);
                clearstatcache();
            }
            break;
        case 'throw':
            throw new Exception('thrown by a worker');
        case 'count':
            $c->state = ['count' => ($c->state['count'] ?? 0) + 1];
            return $c->state['count'];
        case 'say':
            rt_broadcast($m->channel, $m->data, except: $c->id);
            return null;
    }
    $note("$c->id " . json_encode($m->data));
    return ['by' => $name, 'data' => $m->data, 'sapi' => PHP_SAPI];
});
rt_on_close(fn (Realtime\Connection $c, int $code) => $note("$c->id closed $code"));
rt_every(0.05, function () {
    static $ticks = 0;
    if (++$ticks === 2) {
        echo "ready\n";
    }
});
echo rt_run(), " events\n";
