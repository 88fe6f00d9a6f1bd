--TEST--
SIGINT and SIGTERM end rt_run() and nothing else, and are the script's again after it
--EXTENSIONS--
realtime
pcntl
posix
--INI--
realtime.listen=127.0.0.1:0
realtime.socket={TMP}/realtime-phpt-rt_run_signal/hub.sock
realtime.threads=1
--FILE--
<?php
require __DIR__ . '/client.inc';

foreach ([SIGINT, SIGTERM] as $signal) {
    rt_after(0.05, fn() => posix_kill(getmypid(), $signal));
    rt_run(slow(30));
    echo "still here\n";
}
// Also when the script had a handler of its own before.
pcntl_signal(SIGINT, fn() => print("never\n"));
pcntl_signal(SIGINT, SIG_DFL);
rt_after(0.05, fn() => posix_kill(getmypid(), SIGINT));
rt_run(slow(30));
echo "still here\n";
$pid = pcntl_fork();
if ($pid === 0) {
    posix_kill(getmypid(), SIGTERM);
    sleep((int) slow(5));
    exit;
}
pcntl_waitpid($pid, $status);
var_dump(pcntl_wifsignaled($status), pcntl_wtermsig($status) === SIGTERM);
?>
--EXPECTF--
still here
still here
still here
bool(true)
bool(true)
--CLEAN--
<?php
require __DIR__ . '/clean.inc';
clean('rt_run_signal');
?>
