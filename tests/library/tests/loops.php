<?php
/** The extension's events in other event loops. */
declare(strict_types=1);

return [
    'ReactPHP: events, our timers and its own' => function (Lab $lab): void {
        $program = app($lab, 'react');
        $socket = new Socket($lab->port, '/raw/ask');
        $socket->send('hello');
        equals('HELLO', $socket->receive());
        $clock = new Socket($lab->port, '/raw/clock');
        both($clock);
        $end = new Socket($lab->port, '/raw/end');
        $end->send('now');
        prints($program, 'the loop has ended');
    },
    'Revolt: a handler that suspends holds up what comes after it, and nothing else' => function (Lab $lab): void {
        $program = app($lab, 'revolt');
        $clock = new Socket($lab->port, '/raw/clock');
        $socket = new Socket($lab->port, '/raw/ask');
        $socket->send('wait');
        $socket->send('then');
        equals('tock', $clock->receive());
        equals('tock', $clock->receive());
        equals('WAIT', $socket->receive());
        equals('THEN', $socket->receive());
        $end = new Socket($lab->port, '/raw/end');
        $end->send('now');
        prints($program, 'the loop has ended');
    },
];

/** Waits for one of each. */
function both(Socket $clock): void
{
    for ($seen = [], $i = 0; count($seen) < 2; $i++) {
        $i < 100 || throw new Exception('only: ' . implode(', ', array_keys($seen)));
        $seen[$clock->receive()] = true;
    }
}
