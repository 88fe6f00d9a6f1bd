<?php
/* The handler of the figures of events under PHP-FPM: every message goes back to its author. */
declare(strict_types=1);

rt_on_message(fn (Realtime\Message $m): mixed => $m->data);
rt_run();
