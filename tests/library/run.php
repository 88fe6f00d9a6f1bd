<?php
/**
 * Runs what php/lib gives to frameworks inside of them: `php tests/library/run.php [part of a test's name]`. Laravel's and
 * Symfony's parts are those of Debian's packages; of Ratchet, ReactPHP and Revolt there are the interfaces alone (interfaces/).
 */
declare(strict_types=1);

require __DIR__ . '/../readme/client.php';
require __DIR__ . '/../readme/lab.php';

function main(string $only): int
{
    $root = dirname(__DIR__, 2);
    $php = getenv('PHP') ?: PHP_BINARY;
    $php = str_contains($php, '/') ? $php : trim((string) shell_exec('command -v ' . escapeshellarg($php)));
    $extension = getenv('REALTIME_SO') ?: "$root/modules/realtime.so";
    is_file($extension) || throw new Exception("$extension is missing: run make first");
    $passed = $failed = 0;
    foreach (glob(__DIR__ . '/tests/*.php') as $file) {
        foreach (require $file as $name => $test) {
            $name = basename($file, '.php') . ": $name";
            if (!str_contains($name, $only)) {
                continue;
            }
            $lab = new Lab($root, $php, $extension);
            register_shutdown_function($lab->remove(...));
            try {
                $test($lab);
                $passed++;
                echo "ok      $name\n";
            } catch (Throwable $error) {
                $failed++;
                echo "FAILED  $name\n        ", str_replace("\n", "\n        ", trim("$error")), "\n";
            } finally {
                $lab->remove();
            }
        }
    }
    echo "\n$passed passed, $failed failed\n";
    return $failed === 0 && $passed > 0 ? 0 : 1;
}

/** Starts one of apps/, and waits until it serves. */
function app(Lab $lab, string $name, string ...$arguments): Program
{
    $code = str_replace('ROOT', $lab->root, file_get_contents(__DIR__ . "/apps/$name.php"));
    $program = $lab->php($code, "$name.php", ...extensions(), ...$arguments);
    $lab->ready($program);
    return $program;
}

/** The options that load what frameworks need of PHP's own extensions, where they are not built in. */
function extensions(): array
{
    $shared = array_filter(
        ['mbstring', 'ctype', 'tokenizer', 'iconv', 'fileinfo', 'sodium'],
        fn (string $one) => is_file(ini_get('extension_dir') . "/$one.so"),
    );
    return array_merge(...array_map(fn ($one) => ['-d', "extension=$one"], array_values($shared)));
}

function equals(mixed $expected, mixed $given): void
{
    if ($expected !== $given) {
        throw new Exception('expected ' . var_export($expected, true) . ', got ' . var_export($given, true));
    }
}

/** Waits for the text in what a program prints. */
function prints(Program $program, string $text): void
{
    for ($until = microtime(true) + PATIENCE; !str_contains($program->output(), $text); usleep(10_000)) {
        if (microtime(true) > $until) {
            throw new Exception("\"$text\" is not in: " . $program->output());
        }
    }
}

exit(main($argv[1] ?? ''));
