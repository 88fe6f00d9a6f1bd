<?php
// The server of the protocol tests. What native clients publish goes to everybody on the channel.

rt_on_message(fn(Realtime\Message $m) => rt_broadcast($m->channel, $m->data, event: $m->event, except: $m->from->id));

echo 'Listening on ', rt_listen($argv[1]), "\n";
rt_run();
