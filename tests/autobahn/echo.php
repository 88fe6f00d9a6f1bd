<?php
/* The server under Autobahn's cases: `php echo.php LISTEN`. What comes on /raw/ goes back to its author, through PHP. */
declare(strict_types=1);

rt_on_message(fn(Realtime\Message $m) => $m->data);
echo 'LISTEN ', rt_listen($argv[1]), "\n";
rt_run();
