--TEST--
Realtime\Exception is an exception like others
--EXTENSIONS--
realtime
--INI--
--FILE--
<?php
final class Mine extends Realtime\Exception {}
$e = new Mine('text', 7, new Exception('before'));
var_dump($e instanceof Exception, $e->getMessage(), $e->getCode(), $e->getPrevious()->getMessage(), $e->getLine());
?>
--EXPECTF--
bool(true)
string(4) "text"
int(7)
string(6) "before"
int(3)
