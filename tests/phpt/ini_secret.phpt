--TEST--
phpinfo() does not show realtime.secret, in text and in HTML
--EXTENSIONS--
realtime
--INI--
realtime.secret=a-secret-of-the-tests-that-is-long-enough
--FILE--
<?php
ob_start();
(new ReflectionExtension('realtime'))->info();
phpinfo(INFO_MODULES | INFO_CONFIGURATION);
$info = ob_get_clean();
preg_match_all('/^realtime\.secret.*/m', $info, $lines);
echo implode("\n", $lines[0]), "\n";
var_dump(str_contains($info, ini_get('realtime.secret')));
?>
--EXPECT--
realtime.secret => set, and not shown => set, and not shown
realtime.secret => set, and not shown => set, and not shown
bool(false)
