<?php
require 'ROOT/tests/library/interfaces/revolt.php';
require 'ROOT/tests/library/autoload.php';

use Revolt\EventLoop;

rt_on_message(function (Realtime\Message $m) {
    if ($m->data === 'wait') {
        // What amphp's delay() does.
        $suspension = EventLoop::getSuspension();
        EventLoop::delay(0.3, fn () => $suspension->resume());
        $suspension->suspend();
    }
    return strtoupper($m->data);
}, 'ask');
rt_listen('127.0.0.1:8080');

$detach = Realtime\Loop\RevoltLoop::attach();
$tock = function () use (&$tock) {
    rt_broadcast('clock', 'tock');
    EventLoop::delay(0.05, $tock);
};
EventLoop::delay(0.05, $tock);
rt_on_message(function () use ($detach) {
    $detach();
    EventLoop::stop();
}, 'end');
EventLoop::run();
echo "the loop has ended\n";
