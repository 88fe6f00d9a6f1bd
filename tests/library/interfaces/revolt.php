<?php
/**
 * What a program uses of Revolt 1.x, for machines that cannot install it: callbacks for readable streams and delays, each in a
 * fiber, which may suspend.
 */

namespace Revolt {

final class EventLoop
{
    private static array $callbacks = [];
    private static array $ready = [];
    private static int $last = 0;
    private static bool $running = false;

    public static function onReadable(mixed $stream, \Closure $closure): string
    {
        $id = 'r' . ++self::$last;
        self::$callbacks[$id] = (object) ['stream' => $stream, 'call' => $closure, 'enabled' => true];
        return $id;
    }

    public static function delay(float $delay, \Closure $closure): string
    {
        $id = 'd' . ++self::$last;
        self::$callbacks[$id] = (object) ['due' => microtime(true) + $delay, 'call' => $closure, 'enabled' => true];
        return $id;
    }

    public static function enable(string $id): string
    {
        isset(self::$callbacks[$id]) || throw new \Error("no callback is called $id");
        self::$callbacks[$id]->enabled = true;
        return $id;
    }

    public static function disable(string $id): string
    {
        if (isset(self::$callbacks[$id])) {
            self::$callbacks[$id]->enabled = false;
        }
        return $id;
    }

    public static function cancel(string $id): void
    {
        unset(self::$callbacks[$id]);
    }

    public static function getSuspension(): EventLoop\Suspension
    {
        return new EventLoop\Suspension(\Fiber::getCurrent());
    }

    public static function run(): void
    {
        for (self::$running = true; self::$running && (self::$callbacks || self::$ready);) {
            foreach (array_splice(self::$ready, 0) as $go) {
                $go();
            }
            $enabled = array_filter(self::$callbacks, fn ($callback) => $callback->enabled);
            $streams = array_map(fn ($c) => $c->stream, array_filter($enabled, fn ($c) => isset($c->stream)));
            $due = array_map(fn ($c) => $c->due, array_filter($enabled, fn ($c) => isset($c->due)));
            $wait = self::$ready ? 0 : ($due ? max(0, min($due) - microtime(true)) : 0.05);
            $none = null;
            if ($streams) {
                stream_select($streams, $none, $none, (int) $wait, (int) (fmod($wait, 1) * 1e6));
            } else {
                usleep((int) ($wait * 1e6));
            }
            foreach (array_keys($streams) as $id) {
                self::start($id, [$id, $enabled[$id]->stream]);
            }
            foreach ($due as $id => $at) {
                if ($at <= microtime(true)) {
                    $callback = self::$callbacks[$id] ?? null;
                    unset(self::$callbacks[$id]);
                    $callback && (new \Fiber($callback->call))->start($id);
                }
            }
        }
    }

    public static function stop(): void
    {
        self::$running = false;
    }

    /** For {@see EventLoop\Suspension}. */
    public static function queue(\Closure $go): void
    {
        self::$ready[] = $go;
    }

    private static function start(string $id, array $arguments): void
    {
        isset(self::$callbacks[$id]) && (new \Fiber(self::$callbacks[$id]->call))->start(...$arguments);
    }
}

}

namespace Revolt\EventLoop {

use Revolt\EventLoop;

final class Suspension
{
    public function __construct(private readonly \Fiber $fiber)
    {
    }

    public function resume(mixed $value = null): void
    {
        EventLoop::queue(fn () => $this->fiber->resume($value));
    }

    public function suspend(): mixed
    {
        return \Fiber::suspend();
    }
}
}
