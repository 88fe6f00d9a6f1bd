<?php
// A feed over Server-Sent Events: a price a second, which a reader that comes back continues where it left off.
//   php -d extension=realtime.so php/examples/feed.php [127.0.0.1:8080] [seconds between two prices]
//   in a browser: new EventSource('http://127.0.0.1:8080/sse?channel=prices').addEventListener('price', e => console.log(e.data));

$price = 100.0;
rt_every((float) ($argv[2] ?? 1), function () use (&$price): void {
    $price = round($price * (1 + random_int(-100, 100) / 10000), 2);
    rt_broadcast('prices', ['symbol' => 'ACME', 'price' => $price, 'at' => date(DATE_ATOM)], event: 'price');
});

echo 'Listening on ', rt_listen($argv[1] ?? null), "\n";
rt_run();
