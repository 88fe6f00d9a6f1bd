<?php

declare(strict_types=1);

namespace Realtime\Loop;

use React\EventLoop\Loop;
use React\EventLoop\LoopInterface;

/**
 * The handlers of rt_on_*() and timers of rt_every() in ReactPHP's loop, beside everything else that runs there.
 */
final class ReactLoop
{
    /**
     * Begins to handle events in the loop. rt_listen() first, unless another process's server is meant.
     *
     * @param LoopInterface|null $loop the process's own when null
     * @return \Closure(): void ends it
     * @throws \Realtime\Exception as rt_stream()
     */
    public static function attach(?LoopInterface $loop = null): \Closure
    {
        $loop ??= Loop::get();
        $stream = rt_stream();
        $loop->addReadStream($stream, static function (): void {
            rt_dispatch();
        });
        return static function () use ($loop, $stream): void {
            $loop->removeReadStream($stream);
        };
    }
}
