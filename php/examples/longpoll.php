<?php
// Long polling, with nothing but HTTP: a client asks, and is answered when there is something.
//   php -d extension=realtime.so php/examples/longpoll.php [127.0.0.1:8080]
//   curl 'http://127.0.0.1:8080/poll?channel=news&timeout=0'          → a first cursor
//   curl 'http://127.0.0.1:8080/poll?channel=news&since=<cursor>'     → waits, and answers with the next cursor
//   curl -H 'Content-Type: application/json' -d '{"channel":"news","data":"it rains"}' http://127.0.0.1:8080/publish

rt_on_message(function (Realtime\Message $m): array {
    return ['id' => rt_broadcast('news', $m->data)];
}, 'news');

echo 'Listening on ', rt_listen($argv[1] ?? null), "\n";
rt_run();
