<?php
/** Realtime\Symfony\Hub in a container, as php/docs/frameworks.md says. */
declare(strict_types=1);

const KEY = 'a-secret-of-at-least-32-bytes-of-text';

/** The server, and somebody who can ask it. */
$start = function (Lab $lab): array {
    $keys = ['publisher', 'subscriber'];
    $keys = array_merge(...array_map(fn ($who) => ['-d', "realtime.mercure_{$who}_key=" . KEY], $keys));
    app($lab, 'symfony_hub', '-d', 'realtime.mercure_anonymous=1', ...$keys);
    $app = new Socket($lab->port, '/ws');
    return [$keys, function (string $channel, array $data = []) use ($app): array {
        $app->send(json_encode(['type' => 'publish', 'channel' => $channel, 'data' => $data, 'ref' => 'r']));
        return $app->frame('reply')['data'];
    }];
};
$hub = fn (Lab $lab, string $topic, string $token = ''): Events => new Events(
    $lab->port,
    '/.well-known/mercure?' . http_build_query(['topic' => $topic] + ($token === '' ? [] : ['authorization' => $token])),
);

return [
    'updates reach subscribers without HTTP; private ones with the cookie\'s token only' => function (Lab $lab) use ($start, $hub): void {
        [, $ask] = $start($lab);
        $about = $ask('about');
        $public = "http://127.0.0.1:$lab->port/.well-known/mercure";
        [$name, $token, $path] = $about['cookie'];
        unset($about['cookie']);
        equals([
            'class' => 'Realtime\Symfony\Hub',
            // Nobody is there: what arrives did not go by it.
            'url' => 'http://nobody.invalid/.well-known/mercure',
            'public' => $public,
            'jwt' => 'of-the-publisher',
            'link' => [['mercure'], $public],
        ], $about);
        equals(['mercureAuthorization', '/.well-known/mercure'], [$name, $path]);

        $topic = 'https://shop.example/orders/1';
        [$ann, $anonymous] = [$hub($lab, $topic, $token), $hub($lab, $topic)];
        $secret = $ask('ship', ['topics' => $topic, 'data' => '{"status": "secret"}', 'private' => true]);
        $open = $ask('ship', ['topics' => ["$topic/all", $topic], 'data' => "two\nlines", 'type' => 'message', 'retry' => 3000]);
        equals(['urn:x:7'], array_values($ask('ship', ['topics' => $topic, 'id' => 'urn:x:7'])));
        equals(['id' => $secret['id'], 'data' => '{"status": "secret"}'], $ann->next());
        foreach ([$ann, $anonymous] as $events) {
            equals(['id' => $open['id'], 'data' => "two\nlines"], $events->next());
            equals('urn:x:7', $events->next()['id']);
        }
    },
    'a worker publishes to another process\'s server; what is wrong is Symfony\'s exception' => function (Lab $lab) use ($start, $hub): void {
        [$keys, $ask] = $start($lab);
        $ann = $hub($lab, 'orders', $ask('about')['cookie'][1]);
        $code = str_replace('ROOT', $lab->root, file_get_contents(__DIR__ . '/../apps/symfony_hub.php'));
        $worker = function (array $update, string ...$more) use ($lab, $code): array {
            $lab->write('worker.php', $code);
            $program = $lab->run('worker.php', json_encode($update), ...extensions(), ...$more);
            return json_decode($program->ends(), true, flags: JSON_THROW_ON_ERROR);
        };
        // The token covers its alternate topic.
        $update = ['topics' => ['orders', 'https://shop.example/orders/1'], 'data' => 'from a worker', 'private' => true];
        $told = $worker($update);
        equals(['id' => $told['id'], 'data' => 'from a worker'], $ann->next());

        $invalid = 'Symfony\Component\Mercure\Exception\InvalidArgumentException';
        $told = $worker(['topics' => 'two words']);
        equals(true, str_contains($told[$invalid], 'Argument #1 ($topics)'));
        $told = $worker(['topics' => 'a'], '-d', "realtime.socket=$lab->directory/none.sock");
        equals(['Symfony\Component\Mercure\Exception\RuntimeException'], array_keys($told));
        equals(true, str_starts_with(current($told), 'realtime: '));
    },
];
