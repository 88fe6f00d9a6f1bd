--TEST--
a handler of pcntl_signal() runs in rt_run(), without and with asynchronous signals
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_run_pcntl/hub.sock
realtime.threads=1
--FILE--
<?php
foreach ([false, true] as $async) {
    pcntl_async_signals($async);
    pcntl_signal(SIGTERM, fn() => print("SIGTERM\n"));
    pcntl_signal(SIGUSR1, function () {
        echo "SIGUSR1\n";
        rt_stop();
    });
    rt_after(0.02, fn() => posix_kill(getmypid(), SIGTERM));
    rt_after(0.04, fn() => posix_kill(getmypid(), SIGUSR1));
    $start = microtime(true);
    rt_run(5);
    var_dump(microtime(true) - $start < 1);
    // From outside, while it sleeps.
    if (pcntl_fork() === 0) {
        usleep(100000);
        posix_kill(posix_getppid(), SIGUSR1);
        exit;
    }
    rt_run(5);
    var_dump(microtime(true) - $start < 2);
}
// What a handler throws while rt_run() sleeps comes out of it.
pcntl_signal(SIGUSR1, fn() => throw new Exception('out of rt_run()'));
if (pcntl_fork() === 0) {
    usleep(100000);
    posix_kill(posix_getppid(), SIGUSR1);
    exit;
}
try {
    rt_run(5);
} catch (Exception $e) {
    echo $e->getMessage(), "\n";
}
?>
--EXPECTF--
SIGTERM
SIGUSR1
bool(true)
SIGUSR1
bool(true)
SIGTERM
SIGUSR1
bool(true)
SIGUSR1
bool(true)
out of rt_run()
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_run_pcntl');
?>
