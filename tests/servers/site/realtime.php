<?php
// realtime.handler of the tests' site: who may do what is decided by the PHP session that the page's login made.
session_start(['read_and_close' => true]);
$user = $_SESSION['user'] ?? null;

rt_on_open(function (Realtime\Connection $c) {
    return match ($c->query['open'] ?? '') {
        'refuse' => false,
        'throw' => throw new Exception('open failed'),
        'slow' => usleep(1_500_000) === null,
        default => null,
    };
});
rt_on_subscribe(function (Realtime\Connection $c, string $channel) use ($user) {
    return match (true) {
        str_starts_with($channel, 'private-of-') => $channel === "private-of-$user",
        str_starts_with($channel, 'closed') => false,
        default => true,
    };
});
rt_on_message(function (Realtime\Message $m) use ($user) {
    $c = $m->from;
    switch ($m->event) {
        case 'who':
            return [
                'user' => $user, 'ip' => $c->ip, 'remote' => $_SERVER['REMOTE_ADDR'], 'method' => $_SERVER['REQUEST_METHOD'],
                'uri' => $_SERVER['REQUEST_URI'], 'get' => $_GET, 'cookie' => $_COOKIE, 'agent' => $_SERVER['HTTP_USER_AGENT'] ?? null,
                'sapi' => PHP_SAPI, 'id' => $c->id, 'proxy' => getenv('HTTP_PROXY') ?: ($_SERVER['HTTP_PROXY'] ?? null), 'pid' => getmypid(),
            ];
        case 'say':
            rt_broadcast($m->channel, $m->data, except: $c->id);
            return null;
        case 'count':
            // A small state that the hub keeps between two events.
            $c->state = ['count' => ($c->state['count'] ?? 0) + 1, 'last' => $m->data];
            return $c->state;
        case 'big':
            $c->state = ['big' => str_repeat('x', $m->data)];
            return 'kept';
        case 'append':
            file_put_contents(__DIR__ . '/order.txt', json_encode([$c->id, $m->data]) . "\n", FILE_APPEND | LOCK_EX);
            return $m->data;
        case 'slow':
            usleep((int) ($m->data * 1e6));
            return 'slept';
        case 'wait':
            // Until the test has made the file; $file.begun has a line for each that waits.
            file_put_contents("$m->data.begun", getmypid() . "\n", FILE_APPEND | LOCK_EX);
            while (!file_exists($m->data)) {
                usleep(5000);
                clearstatcache();
            }
            return 'waited';
        case 'send':
            return [$c->send('for you', event: 'direct'), $c->subscribe('by-php')];
        case 'print':
            echo str_repeat('printed by the handler ', 1000);
            header('X-Handler: yes');
            echo "\xff\x00not text";
            return 'printed';
        case 'throw':
            throw new Exception('thrown by the handler');
        case 'exit':
            exit('goodbye');
        case 'fatal':
            $f = 'no_such_function';
            return $f();
        case 'memory':
            $hog = str_repeat('x', 1 << 30);
            return strlen($hog);
        case 'loop':
            while (true);
        case 'kill':
            // What a worker's death looks like. A file makes it happen $m->data times.
            $file = __DIR__ . '/kills.txt';
            $done = (int) @file_get_contents($file);
            if ($done < $m->data) {
                file_put_contents($file, $done + 1);
                posix_kill(getmypid(), 9); // ext-pcntl, which names it, is not in a pool
                sleep(1);
            }
            return "after $done";
        case 'bye':
            $c->close(4001, 'as you wish');
            return null;
        case 'nothing':
            return null;
    }
    return $m->data;
});
rt_on_close(function (Realtime\Connection $c, int $code, string $reason) {
    file_put_contents(__DIR__ . '/closed.txt', "$c->id $code $reason\n", FILE_APPEND);
});
rt_run();
