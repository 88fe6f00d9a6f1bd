<?php
// The server of the client tests: what a message's event asks for is what happens.

final class Revoked
{
    /** @var array<string, true> */
    public static array $channels = [];
}

rt_on_message(function (Realtime\Message $m): mixed {
    return match ($m->event) {
        'echo' => ['data' => $m->data, 'transport' => $m->from->transport, 'connection' => $m->from->id],
        'say' => rt_broadcast($m->channel, $m->data, except: $m->from->id),
        'numbers' => array_map(fn(int $i): string => rt_broadcast($m->channel, $i, store: $m->data['store'] ?? true),
            range($m->data['from'], $m->data['to'])),
        'send' => rt_send($m->from->id, $m->data, event: 'direct'),
        'binary' => rt_broadcast($m->channel, new Realtime\Binary("\x00\xff\x80")),
        'revoke' => Revoked::$channels[$m->channel] = true,
        'take' => rt_unsubscribe($m->from->id, $m->channel),
        'close' => rt_close($m->from->id, $m->data['code'], 'as asked'),
        'fail' => throw new DomainException('as asked'),
        'slow' => usleep(1_000_000),
        default => null,
    };
});
rt_on_subscribe(fn(Realtime\Connection $c, string $channel): bool =>
    !str_starts_with($channel, 'private-') && !isset(Revoked::$channels[$channel]));
rt_on_error(function (Realtime\Connection $c, Throwable $e): void {
    if ($e->getMessage() !== 'as asked') {
        fwrite(STDERR, "$e\n");
    }
});

echo 'Listening on ', rt_listen($argv[1]), "\n";
rt_run();
