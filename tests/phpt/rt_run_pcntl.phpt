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
require __DIR__ . '/client.inc';

// A child that sends SIGUSR1 to this process, once that is in rt_run().
$outside = function (): void {
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    if (pcntl_fork() === 0) {
        fread($theirs, 1);
        usleep((int) slow(100000));
        posix_kill(posix_getppid(), SIGUSR1);
        exit;
    }
    rt_after(0, fn() => fwrite($ours, 'x'));
};
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
    rt_run(slow(60));
    var_dump(microtime(true) - $start < slow(30));
    // From outside, while it sleeps.
    $outside();
    rt_run(slow(60));
    var_dump(microtime(true) - $start < slow(50));
}
// What a handler throws while rt_run() sleeps comes out of it.
pcntl_signal(SIGUSR1, fn() => throw new Exception('out of rt_run()'));
$outside();
try {
    rt_run(slow(60));
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
