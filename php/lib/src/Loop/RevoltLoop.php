<?php

declare(strict_types=1);

namespace Realtime\Loop;

use Revolt\EventLoop;

/**
 * The handlers of rt_on_*() and timers of rt_every() in Revolt's loop (amphp), beside everything else that runs there.
 *
 * A handler may suspend. Until it goes on, the events after it wait, as with rt_run(): so their order is kept.
 */
final class RevoltLoop
{
    /**
     * Begins to handle events in the loop. rt_listen() first, unless another process's server is meant.
     *
     * @return \Closure(): void ends it
     * @throws \Realtime\Exception as rt_stream()
     */
    public static function attach(): \Closure
    {
        $ended = false;
        $id = EventLoop::onReadable(rt_stream(), static function (string $id) use (&$ended): void {
            EventLoop::disable($id);
            try {
                rt_dispatch();
            } finally {
                if (!$ended) {
                    EventLoop::enable($id);
                }
            }
        });
        return static function () use ($id, &$ended): void {
            $ended = true;
            EventLoop::cancel($id);
        };
    }
}
