<?php
require __DIR__ . '/client.inc';

rt_on_message(fn($m) => ['sum' => array_sum($m->data), 'by' => $m->from->transport]);
$json = ['Content-Type' => 'application/json'];
$answer = http(rt_listen(), 'POST /publish', '{"channel":"sums","data":[1,2,3]}', $json);
echo strtok($answer, "\r"), "\n", explode("\r\n\r\n", $answer)[1], "\n";
rt_on_message(fn() => throw new Exception('no'), 'broken');
rt_on_error(fn() => null);
$answer = http(rt_listen(), 'POST /publish', '{"channel":"broken","data":"x"}', $json);
echo strtok($answer, "\r"), "\n";
?>
