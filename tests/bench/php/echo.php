<?php
/* The server of the echo figures: `php echo.php LISTEN`. Every message goes back to its author, through PHP. */
declare(strict_types=1);

rt_on_message(function (Realtime\Message $m): void {
    $m->from->send($m->data);
});
echo 'LISTEN ', rt_listen($argv[1]), ' ', hrtime(true), "\n";
rt_run();
