<?php
// Ratchet's chat: whatever a client of ws://…/raw/chat says goes to all the others.
//   php -d extension=realtime.so php/examples/chat.php [127.0.0.1:8080]
//   in a browser: const ws = new WebSocket('ws://127.0.0.1:8080/raw/chat'); ws.onmessage = e => console.log(e.data);

rt_on_open(function (Realtime\Connection $from): void {
    echo "New connection! ({$from->id})\n";
});

rt_on_message(function (Realtime\Message $m): void {
    if ($m->data === '/fail') {
        throw new DomainException('as you wish');
    }
    rt_broadcast($m->channel, $m->data, except: $m->from->id);
}, 'chat');

rt_on_close(function (Realtime\Connection $from, int $code, string $reason): void {
    echo "Connection {$from->id} has disconnected ({$code})\n";
});

rt_on_error(function (Realtime\Connection $from, Throwable $e): void {
    echo "An error has occurred: {$e->getMessage()}\n";
    rt_close($from->id, 4000, 'error');
});

echo 'Listening on ', rt_listen($argv[1] ?? null), "\n";
rt_run();
