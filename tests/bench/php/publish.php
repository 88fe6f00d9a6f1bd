<?php
/*
 * The server of the fan-out figures: `php publish.php LISTEN`, or `php publish.php -` to publish through the
 * control socket of another process. Obeys lines on standard input and answers on standard output.
 * Between lines, each byte on standard input says that one more message has reached all clients.
 */
declare(strict_types=1);

require __DIR__ . '/publishing.php';

$address = $argv[1] === '-' ? '-' : rt_listen($argv[1]);
echo 'LISTEN ', $address, ' ', hrtime(true), "\n";

$sequence = 0;
while (($line = fgets(STDIN)) !== false) {
    echo 'DONE ', implode(' ', obey(trim($line), STDIN)), "\n";
}
