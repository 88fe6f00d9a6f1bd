<?php
require __DIR__ . '/client.inc';
function attempt(callable $call): void
{
    try {
        echo json_encode($call()), "\n";
    } catch (Throwable $e) {
        echo get_class($e), ': ', $e->getMessage(), "\n";
    }
}

$kept = null;
rt_on_message(function (Realtime\Message $m) use (&$kept) {
    $kept = $m;
    attempt(fn() => $m->data = 'x');
    attempt(fn() => clone $m);
    attempt(fn() => serialize($m));
    attempt(fn() => $m->reply(NAN));
    attempt(fn() => $m->reply(['by' => 'method']));
    attempt(fn() => $m->reply('again'));
    return 'returned, but too late';
});
attempt(fn() => new Realtime\Message);
$socket = new Socket(rt_listen(), '/ws');
$socket->frame();
$socket->send('{"type":"publish","channel":"chat","data":"x","ref":1}');
echo $socket->frame(), "\n";
attempt(fn() => $kept->reply('after all'));
attempt(fn() => [$kept->channel, $kept->event, $kept->data, ctype_digit($kept->id), $kept->from->transport]);
?>
