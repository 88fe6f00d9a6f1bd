<?php
// Does to its worker what the query says. Every request starts the hub, whatever it does.
match ($_GET['what']) {
    'pid' => print(json_encode(['pid' => getmypid()])),
    'stats' => print(json_encode(rt_stats() + ['worker' => getmypid()])),
    'crash' => posix_kill(getmypid(), 11),
    'sleep' => sleep((int) $_GET['seconds']),
    // Until the test has made the file; `file`.begun says that it waits.
    'wait' => (function () {
        for (touch("$_GET[file].begun"); !file_exists($_GET['file']); clearstatcache()) {
            usleep(5000);
        }
        echo 'waited';
    })(),
    'output' => print(str_repeat('x', (int) $_GET['bytes'])),
    // Publishes as long as it lasts, as a slow import would.
    'publish' => (function () {
        for ($end = microtime(true) + (float) $_GET['seconds']; microtime(true) < $end;) {
            rt_broadcast($_GET['channel'], 'tick');
            usleep(5000);
        }
        echo 'done';
    })(),
    'listen' => rt_listen(),
    'run' => rt_run(),
};
