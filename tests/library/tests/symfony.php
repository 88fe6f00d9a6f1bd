<?php
/** Symfony's own Hub, which publishes by the Mercure protocol. */
declare(strict_types=1);

const MERCURE_SECRET = 'a-secret-of-at-least-32-bytes-of-text';

return [
    'an update reaches the channel; a private one only those who may' => function (Lab $lab): void {
        app($lab, 'symfony', '-d', 'realtime.mercure_publisher_key=' . MERCURE_SECRET);
        [$ann, $app] = [new Socket($lab->port, '/ws'), new Socket($lab->port, '/ws')];
        $topic = 'https://shop.example/orders/1';
        $ann->send(json_encode(['type' => 'subscribe', 'channel' => $topic]));
        $ann->frame('subscribed');
        $ship = function (array $update, string $secret = MERCURE_SECRET) use ($app): string {
            $data = ['update' => $update, 'secret' => $secret];
            $app->send(json_encode(['type' => 'publish', 'channel' => 'ship', 'data' => $data, 'ref' => 'r']));
            return $app->frame('reply')['data'];
        };
        $id = $ship(['topics' => ["$topic/all", $topic], 'data' => '{"status":"paid"}', 'type' => 'order', 'retry' => 3000]);
        equals(1, preg_match('~^urn:uuid:[0-9a-f-]{36}$~', $id));
        $message = $ann->frame('message');
        equals([$topic, 'order', ['status' => 'paid']], [$message['channel'], $message['event'], $message['data']]);
        $ship(['topics' => $topic, 'data' => '"secret"', 'private' => true]);
        equals('urn:x:7', $ship(['topics' => $topic, 'data' => 'open', 'id' => 'urn:x:7']));
        $message = $ann->frame('message');
        equals(['urn:x:7', 'open'], [$message['id'], $message['data']]);
        $refused = $ship(['topics' => $topic], str_repeat('another', 6));
        equals(true, str_contains($refused, '401'));
    },
];
