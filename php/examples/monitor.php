<?php
// A monitoring page's server: the load and the memory of this machine, four times a second, to everybody who looks.
//   php -d extension=realtime.so php/examples/monitor.php [127.0.0.1:8080]
//   in a page: import { Realtime } from 'http://127.0.0.1:8080/realtime.js';
//              new Realtime('http://127.0.0.1:8080/').subscribe('monitor', point => console.log(point.load, point.clients));

rt_every(0.25, function (): void {
    rt_broadcast('monitor', [
        'time' => microtime(true),
        'load' => sys_getloadavg(),
        'memory' => memory_get_usage(),
        'clients' => count(rt_connections('monitor')),
    ], store: false);
});

echo 'Listening on ', rt_listen($argv[1] ?? null), "\n";
rt_run();
