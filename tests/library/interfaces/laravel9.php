<?php
/**
 * What Laravel 9 added for users who sign in, put into Debian's Laravel 8: two methods of the class that all broadcasters
 * extend. All else, the manager and the facade among it, is Laravel's own. Required before anything has loaded that class.
 */

(function (string $source): void {
    if (str_contains($source, 'resolveAuthenticatedUser')) {
        return;
    }
    $methods = <<<'PHP'
            protected $authenticatedUserCallback = null;

            public function resolveAuthenticatedUserUsing(\Closure $callback)
            {
                $this->authenticatedUserCallback = $callback;
            }

            public function resolveAuthenticatedUser($request)
            {
                return $this->authenticatedUserCallback === null ? null : ($this->authenticatedUserCallback)($request);
            }
        PHP;
    $added = preg_replace('~^abstract class Broadcaster[^{]*\{~m', "$0\n$methods\n", $source, -1, $count);
    $count === 1 || throw new LogicException('Laravel\'s Broadcaster is not as it was');
    eval(substr($added, strlen('<?php')));
})(file_get_contents('/usr/share/php/Illuminate/Broadcasting/Broadcasters/Broadcaster.php'));
