<?php
// One channel, three protocols: a page on which pusher-js, an EventSource on the Mercure URL and realtime.js show the same
// messages, one every few seconds and one for each click. The keys are settings of the server's start:
//   php -d extension=realtime.so -d realtime.docroot=php/examples/clients -d realtime.pusher_app=shop:shop-key:secret-of-the-shop \
//       -d realtime.mercure_subscriber_key=a-secret-of-at-least-32-bytes-of-text -d realtime.mercure_anonymous=1 \
//       php/examples/clients.php [127.0.0.1:8080] [seconds between two orders]
//   in a second terminal: php -d extension=realtime.so -r 'rt_broadcast("orders", ["id" => 7, "status" => "sent from a shell"]);'

foreach (['docroot', 'pusher_app', 'mercure_subscriber_key', 'mercure_anonymous'] as $setting) {
    if (!ini_get("realtime.$setting")) {
        exit("realtime.$setting is not set: run this as its first lines say\n");
    }
}

$number = 41_000;
$pay = function () use (&$number): array {
    $order = ['id' => ++$number, 'status' => 'paid'];
    rt_broadcast('orders', $order);
    return $order;
};
rt_on_message($pay, 'pay');
rt_every((float) ($argv[2] ?? 3), $pay);

echo 'Listening on http://', rt_listen($argv[1] ?? null), "/\n";
rt_run();
