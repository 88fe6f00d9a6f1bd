<?php
// What a client sends goes back to it, and to whoever listens where it was sent. Under the command line it is a server.
rt_on_message(function (Realtime\Message $m) {
    if ($m->channel === 'probe') {
        rt_broadcast('probe', $m->data);
    }
    return $m->data;
});
if (PHP_SAPI === 'cli') {
    echo 'LISTEN ', rt_listen('127.0.0.1:0'), "\n";
}
rt_run();
