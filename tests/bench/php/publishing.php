<?php
/*
 * What the publishing processes of the bench do: publish.php on the command line, worker.php under PHP-FPM.
 */
declare(strict_types=1);

/**
 * Obeys one line.
 *
 * @param resource $signals each byte says that one more message has reached all clients
 * @return list<int>
 */
function obey(string $line, $signals): array
{
    $words = explode(' ', $line);
    return match ($words[0]) {
        'run' => run($words[1], $words[2], (int) $words[3], (int) $words[4], (int) $words[5], $signals),
        'loop' => loop($words[1], (int) $words[2], (int) $words[3]),
        'asleep' => asleep($words[1], (int) $words[2], (int) $words[3], (int) $words[4]),
    };
}

/**
 * Publishes, with at most $window messages that not all clients have yet. $mode `sliding`: the next one as
 * soon as one is through; `burst`: the next $window when all are through.
 *
 * @param resource $from where a byte comes for each message that all clients have
 * @return list<int> the wall time in ns
 */
function run(string $mode, string $channel, int $messages, int $window, int $bytes, $from): array
{
    global $sequence;
    // From a named pipe, PHP waits for as many bytes as it is asked for.
    $room = stream_get_meta_data($from)['wrapper_type'] === 'plainfile' ? 1 : 4096;
    $filling = filling($bytes - 33);
    $sent = $through = 0;
    $started = hrtime(true);
    while ($through < $messages) {
        if ($mode === 'sliding' || $sent === $through) {
            for (; $sent < $messages && $sent - $through < $window; $sent++) {
                rt_broadcast($channel, sprintf('#%010d %020d %s', $sequence++, hrtime(true), $filling));
            }
        }
        $signals = fread($from, $room);
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
