<?php
/*
 * The server of the fan-out figures: `php publish.php LISTEN`, or `php publish.php -` to publish through the
 * control socket of another process. Obeys lines on standard input and answers on standard output.
 * Between lines, each byte on standard input says that one more message has reached all clients.
 */
declare(strict_types=1);

$address = $argv[1] === '-' ? '-' : rt_listen($argv[1]);
echo 'LISTEN ', $address, ' ', hrtime(true), "\n";

$sequence = 0;
while (($line = fgets(STDIN)) !== false) {
    $words = explode(' ', trim($line));
    $done = match ($words[0]) {
        'run' => run($words[1], $words[2], (int) $words[3], (int) $words[4], (int) $words[5]),
        'loop' => loop($words[1], (int) $words[2], (int) $words[3]),
        'asleep' => asleep($words[1], (int) $words[2], (int) $words[3], (int) $words[4]),
    };
    echo 'DONE ', implode(' ', $done), "\n";
}

/**
 * Publishes, with at most $window messages that not all clients have yet. $mode `sliding`: the next one as
 * soon as one is through; `burst`: the next $window when all are through.
 *
 * @return list<int> the wall time in ns
 */
function run(string $mode, string $channel, int $messages, int $window, int $bytes): array
{
    global $sequence;
    $filling = filling($bytes - 33);
    $sent = $through = 0;
    $started = hrtime(true);
    while ($through < $messages) {
        if ($mode === 'sliding' || $sent === $through) {
            for (; $sent < $messages && $sent - $through < $window; $sent++) {
                rt_broadcast($channel, sprintf('#%010d %020d %s', $sequence++, hrtime(true), $filling));
            }
        }
        $signals = fread(STDIN, 4096);
        if ($signals === false || $signals === '') {
            exit(1); // the driver has given up
        }
        $through += strlen($signals);
    }
    return [hrtime(true) - $started];
}

/** What fills a message up to its size: something like JSON when it is long, so that compression has its usual work. */
function filling(int $bytes): string
{
    if ($bytes < 512) {
        return str_repeat('x', $bytes);
    }
    mt_srand(1);
    $rows = [];
    for ($length = 0; $length < $bytes; $length += strlen(end($rows)) + 1) {
        $rows[] = json_encode([
            'id' => mt_rand(40_000, 50_000),
            'symbol' => ['ACME', 'GLOBEX', 'INITECH'][mt_rand(0, 2)],
            'price' => mt_rand(100, 99_999) / 100,
            'status' => ['paid', 'open', 'shipped'][mt_rand(0, 2)],
            'at' => date(DATE_ATOM, mt_rand(1_700_000_000, 1_800_000_000)),
        ]);
    }
    return substr(implode(',', $rows), 0, $bytes);
}

/**
 * Calls rt_broadcast() as fast as it goes.
 *
 * @return array{int, int} the wall time in ns, and the median over blocks of 100 calls, of 100 calls
 */
function loop(string $channel, int $calls, int $bytes): array
{
    $data = str_repeat('x', $bytes);
    $blocks = [];
    $started = hrtime(true);
    for ($i = 0; $i < $calls; $i += 100) {
        $block = hrtime(true);
        for ($j = 0; $j < 100; $j++) {
            rt_broadcast($channel, $data);
        }
        $blocks[] = hrtime(true) - $block;
    }
    $wall = hrtime(true) - $started;
    sort($blocks);
    return [$wall, $blocks[intdiv(count($blocks), 2)]];
}

/**
 * Calls rt_broadcast() after a pause in which the server thread has gone to sleep.
 *
 * @return array{int, int} the wall time of all calls without the pauses, and the median call
 */
function asleep(string $channel, int $calls, int $bytes, int $pause): array
{
    $data = str_repeat('x', $bytes);
    $times = [];
    for ($i = 0; $i < $calls; $i++) {
        usleep($pause);
        $started = hrtime(true);
        rt_broadcast($channel, $data);
        $times[] = hrtime(true) - $started;
    }
    sort($times);
    return [array_sum($times), $times[intdiv($calls, 2)]];
}
