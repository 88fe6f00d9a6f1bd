<?php
var_dump(ini_get('realtime.max_backlog'), ini_get('realtime.listen'), ini_get('realtime.ping_interval'));
var_dump(ini_set('realtime.ping_interval', '5'));
?>
