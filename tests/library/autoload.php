<?php
/** Composer's part: php/lib/composer.json's autoload. */
spl_autoload_register(static function (string $class): void {
    $file = dirname(__DIR__, 2) . '/php/lib/src/' . strtr(substr($class, strlen('Realtime\\')), '\\', '/') . '.php';
    if (str_starts_with($class, 'Realtime\\') && is_file($file)) {
        require $file;
    }
});
