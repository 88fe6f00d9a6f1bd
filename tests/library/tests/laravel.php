<?php
/** Laravel's broadcasting with BROADCAST_CONNECTION=realtime. */
declare(strict_types=1);

return [
    'an event reaches its channels; toOthers() leaves its author out' => function (Lab $lab): void {
        app($lab, 'laravel', '-d', 'realtime.pusher_app=app:key:a-secret-of-sixteen');
        [$ann, $bob, $app] = [subscribed($lab, 'orders'), subscribed($lab, 'orders'), new Socket($lab->port, '/ws')];
        tell($app, 'ship', ['status' => 'paid']);
        foreach ([$ann, $bob] as $socket) {
            $message = $socket->frame('message');
            equals(['orders', 'Order', ['id' => 7, 'status' => 'paid']], [$message['channel'], $message['event'], $message['data']]);
        }
        $id = tell($ann, 'who', null)['data'];
        tell($app, 'ship', ['status' => 'sent', 'socket' => $id]);
        tell($app, 'ship', ['status' => 'lost']);
        equals('sent', $bob->frame('message')['data']['status']);
        equals('lost', $ann->frame('message')['data']['status']);
    },
    'an event for an encrypted channel is sealed with what the route of Echo tells' => function (Lab $lab): void {
        $key = base64_encode(str_repeat('k', 32));
        app($lab, 'laravel', '-d', 'realtime.pusher_app=app:key:a-secret-of-sixteen', '-d', "realtime.pusher_master_key=\"$key\"");
        equals(
            ['Secret', ['nonce', 'ciphertext'], ['word' => 'sesame']],
            tell(new Socket($lab->port, '/ws'), 'seal', null)['data'],
        );
    },
    'the route of Echo signs for those whom routes/channels.php lets in' => function (Lab $lab): void {
        app($lab, 'laravel', '-d', 'realtime.pusher_app=app:key:a-secret-of-sixteen');
        $socket = new Socket($lab->port, '/ws');
        $auth = fn (?string $user, string $channel, ?string $id = '12.34') => tell($socket, 'auth', array_filter(
            ['user' => $user, 'channel_name' => $channel, 'socket_id' => $id],
            fn ($value) => $value !== null,
        ))['data'];
        $sign = fn (string $text) => 'key:' . hash_hmac('sha256', $text, 'a-secret-of-sixteen');
        equals(
            ['status' => 200, 'body' => ['auth' => $sign('12.34:private-orders.7')]],
            $auth('ann', 'private-orders.7'),
        );
        equals(403, $auth('bob', 'private-orders.7')['status']);
        equals(403, $auth('ann', 'private-orders.8')['status']);
        equals(403, $auth(null, 'private-orders.7')['status']);
        equals(403, $auth('ann', 'private-orders.7', null)['status']);
        equals(403, $auth('ann', 'private-orders.7', '12.34:private-orders.8')['status']);
        $member = $auth('ann', 'presence-staff');
        equals(200, $member['status']);
        $data = $member['body']['channel_data'];
        equals(['user_id' => 'ann', 'user_info' => ['name' => 'Ann']], json_decode($data, true));
        equals($sign("12.34:presence-staff:$data"), $member['body']['auth']);
        equals(403, $auth('bob', 'presence-staff')['status']);
    },
    'the route of signin() signs for whom Broadcast::resolveAuthenticatedUserUsing() names, and for nobody else' => function (Lab $lab): void {
        app9($lab, '-d', 'realtime.pusher_app=app:key:a-secret-of-sixteen');
        $socket = new Socket($lab->port, '/ws');
        $ask = fn (array $input) => tell($socket, 'sign-in', $input)['data'];
        $answer = $ask(['socket_id' => '12.34', 'user' => 'ann']);
        equals(200, $answer['status']);
        ['auth' => $auth, 'user_data' => $data] = $answer['body'];
        equals(['id' => 'ann', 'user_info' => ['name' => 'Ann'], 'watchlist' => ['bob']], json_decode($data, true));
        equals('key:' . hash_hmac('sha256', "12.34::user::$data", 'a-secret-of-sixteen'), $auth);
        equals(['status' => 403, 'body' => null], $ask(['socket_id' => '12.34']));
        foreach ([null, '', 'x', '12.34:private-a', '1'] as $bad) {
            equals(403, $ask(['socket_id' => $bad, 'user' => 'ann'])['status']);
        }
    },
    'Laravel 8, which knows no such users, signs for nobody' => function (Lab $lab): void {
        app($lab, 'laravel', '-d', 'realtime.pusher_app=app:key:a-secret-of-sixteen');
        equals(403, tell(new Socket($lab->port, '/ws'), 'sign-in', ['socket_id' => '12.34', 'user' => 'ann'])['data']['status']);
    },
    'without a server it is a BroadcastException' => function (Lab $lab): void {
        $code = str_replace('rt_listen(', "broadcast(new Order(7, 'paid'));\nrt_listen(", file_get_contents(__DIR__ . '/../apps/laravel.php'));
        $program = $lab->php(str_replace('ROOT', $lab->root, $code), 'laravel.php', ...extensions());
        prints($program, 'BroadcastException: realtime: ');
    },
];

/** The application in Laravel 9, as far as signing in goes. */
function app9(Lab $lab, string ...$arguments): Program
{
    $code = str_replace('ROOT', $lab->root, file_get_contents(__DIR__ . '/../apps/laravel.php'));
    $autoload = "require '$lab->root/tests/library/autoload.php';\n";
    $code = str_replace($autoload, "{$autoload}require '$lab->root/tests/library/interfaces/laravel9.php';\n", $code, $count);
    equals(1, $count);
    $program = $lab->php($code, 'laravel.php', ...extensions(), ...$arguments);
    $lab->ready($program);
    return $program;
}

function subscribed(Lab $lab, string $channel): Socket
{
    $socket = new Socket($lab->port, '/ws');
    $socket->send(json_encode(['type' => 'subscribe', 'channel' => $channel]));
    $socket->frame('subscribed');
    return $socket;
}

/** Sends a message to PHP and waits for its answer. */
function tell(Socket $socket, string $channel, mixed $data): array
{
    $socket->send(json_encode(['type' => 'publish', 'channel' => $channel, 'data' => $data, 'ref' => 'r']));
    return $socket->frame('reply');
}
