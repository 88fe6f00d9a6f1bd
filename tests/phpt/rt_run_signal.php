<?php
foreach ([SIGINT, SIGTERM] as $signal) {
    rt_after(0.05, fn() => posix_kill(getmypid(), $signal));
    rt_run(5);
    echo "still here\n";
}
$pid = pcntl_fork();
if ($pid === 0) {
    rt_run(0.01);
    posix_kill(getmypid(), SIGTERM);
    sleep(5);
    exit;
}
pcntl_waitpid($pid, $status);
var_dump(pcntl_wifsignaled($status), pcntl_wtermsig($status) === SIGTERM);
?>
