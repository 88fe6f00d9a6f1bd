<?php
require 'ROOT/tests/library/interfaces/react.php';
require 'ROOT/tests/library/autoload.php';

rt_on_message(fn (Realtime\Message $m) => strtoupper($m->data));
rt_every(0.05, fn () => rt_broadcast('clock', 'tick'));
rt_listen('127.0.0.1:8080');

$loop = React\EventLoop\Loop::get();
$detach = Realtime\Loop\ReactLoop::attach();
$loop->addPeriodicTimer(0.05, fn () => rt_broadcast('clock', 'tock'));
rt_on_message(function () use ($detach, $loop) {
    $detach();
    $loop->stop();
}, 'end');
$loop->run();
echo "the loop has ended\n";
