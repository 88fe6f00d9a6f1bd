<?php

/**
 * The demo: a chat room and a live monitor in one PHP process, without any other server.
 *
 *     php -d extension=realtime.so -d realtime.docroot="$PWD/php/demo/public" php/demo/demo.php [address]
 *
 * The extension serves the page (public/) and realtime.js; this file says what happens.
 */

declare(strict_types=1);

if (!extension_loaded('realtime')) {
    fwrite(STDERR, "The extension is not loaded. Run: php -d extension=/path/to/realtime.so {$argv[0]}\n");
    exit(1);
}
if (ini_get('realtime.docroot') === '') {
    // A setting of the server's start, which ini_set() cannot change.
    fwrite(STDERR, "The server does not know where the page is. Run: php -d realtime.docroot=" . __DIR__ . "/public … {$argv[0]}\n");
    exit(1);
}
try {
    $address = rt_listen($argv[1] ?? null);
} catch (Realtime\Exception | ValueError $e) {
    fwrite(STDERR, "The demo cannot start: {$e->getMessage()}\n"
        . "Another address: php … {$argv[0]} 127.0.0.1:8081\n");
    exit(1);
}

// What a second terminal runs to be heard in every tab: with this process's own extension and socket.
$settings = array_filter(explode("\0", (string) @file_get_contents('/proc/self/cmdline')), fn(string $argument): bool
    => preg_match('/^(-d)?(zend_)?(extension|realtime\.socket)=/', $argument) === 1);
$settings = array_map(fn(string $argument): string => '-d ' . preg_replace('/^-d/', '', $argument), $settings);
$command = implode(' ', ['php', ...$settings, "-r 'rt_broadcast(\"chat\", \"hello from cron\");'"]);

// Chat: what one tab says goes to all the others; its author sees it confirmed by the reply.
rt_on_message(function (Realtime\Message $m): ?array {
    $text = is_string($m->data['text'] ?? null) ? trim($m->data['text']) : '';
    $name = is_string($m->data['name'] ?? null) ? trim($m->data['name']) : '';
    if ($text === '' || strlen($text) > 4000 || strlen($name) > 100) {
        return ['error' => 'a message is {"name": …, "text": …} with something in it'];
    }
    $said = ['name' => $name, 'text' => $text, 'tab' => $m->data['tab'] ?? null, 'sent' => $m->data['sent'] ?? null];
    return ['id' => rt_broadcast('chat', $said, except: $m->from->id)];
}, 'chat');

rt_on_message(fn(): array => ['command' => $command, 'php' => PHP_VERSION], 'about');

rt_on_error(function (Realtime\Connection $c, Throwable $e): void {
    fwrite(STDERR, "{$c->id}: {$e->getMessage()}\n");
});

// The monitor: four times a second. Not stored, since nobody wants yesterday's load.
$sample = function () use (&$before): array {
    $now = ['time' => microtime(true), 'cpu' => cpu_times(), 'messages' => rt_stats()['delivered']];
    $was = $before ?? $now;
    $before = $now;
    $seconds = max(0.001, $now['time'] - $was['time']);
    $ticks = array_sum($now['cpu'] ?? []) - array_sum($was['cpu'] ?? []);
    return [
        'load' => sys_getloadavg() ?: null,
        'cpu' => $ticks > 0 ? 100 * (1 - ($now['cpu']['idle'] - $was['cpu']['idle']) / $ticks) : null,
        'rate' => ($now['messages'] - $was['messages']) / $seconds,
        'connections' => rt_stats()['connections'],
    ];
};
rt_every(0.25, fn() => rt_broadcast('monitor', $sample(), store: false));

/** The processor time since boot, from Linux; null elsewhere. */
function cpu_times(): ?array
{
    $line = is_readable('/proc/stat') ? strtok((string) file_get_contents('/proc/stat'), "\n") : '';
    $n = array_map(intval(...), array_slice(preg_split('/\s+/', (string) $line), 1, 8));
    return count($n) === 8 ? ['busy' => array_sum($n) - $n[3] - $n[4], 'idle' => $n[3] + $n[4]] : null;
}

$scheme = ini_get('realtime.tls_cert') ? 'https' : 'http';

echo <<<TEXT

      realtime is listening on {$scheme}://{$address}/

      1. Open it in two browser tabs and chat from one to the other.
      2. Watch the monitor move; open the three transports side by side.
      3. In a second terminal, push to both tabs:

         {$command}

      Ctrl+C stops it.


    TEXT;

rt_run();
