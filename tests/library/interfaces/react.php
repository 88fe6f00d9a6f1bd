<?php
/** What a program uses of ReactPHP's event-loop 1.x, for machines that cannot install it: streams, timers and the end. */

namespace React\EventLoop;

interface LoopInterface
{
    public function addReadStream($stream, $listener);

    public function removeReadStream($stream);

    public function addPeriodicTimer($interval, $callback);

    public function run();

    public function stop();
}

/** A loop over stream_select(), as React's own default is. */
final class StreamSelectLoop implements LoopInterface
{
    private array $streams = [];
    private array $timers = [];
    private bool $running = false;

    public function addReadStream($stream, $listener)
    {
        $this->streams[(int) $stream] = [$stream, $listener];
    }

    public function removeReadStream($stream)
    {
        unset($this->streams[(int) $stream]);
    }

    public function addPeriodicTimer($interval, $callback)
    {
        $this->timers[] = (object) ['interval' => $interval, 'callback' => $callback, 'next' => microtime(true) + $interval];
    }

    public function run()
    {
        for ($this->running = true; $this->running && ($this->streams || $this->timers);) {
            $now = microtime(true);
            $wait = $this->timers ? max(0, min(array_column($this->timers, 'next')) - $now) : 3600;
            $read = array_column($this->streams, 0);
            $none = null;
            if ($read) {
                stream_select($read, $none, $none, (int) $wait, (int) (fmod($wait, 1) * 1e6));
            } else {
                usleep((int) ($wait * 1e6));
            }
            foreach ($read as $stream) {
                isset($this->streams[(int) $stream]) && $this->streams[(int) $stream][1]($stream);
            }
            foreach ($this->timers as $timer) {
                if ($timer->next <= microtime(true)) {
                    $timer->next += $timer->interval;
                    ($timer->callback)($timer);
                }
            }
        }
    }

    public function stop()
    {
        $this->running = false;
    }
}

final class Loop
{
    private static ?LoopInterface $loop = null;

    public static function get(): LoopInterface
    {
        return self::$loop ??= new StreamSelectLoop();
    }
}
