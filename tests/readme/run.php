<?php
/**
 * Runs every code block of README.md, php/docs/api.md and php/docs/presence.md for real, with the extension loaded and a real client beside
 * it: `php tests/readme/run.php [part of a block's name]`. Needs modules/realtime.so, Chromium and bash.
 *
 * What a block must do is said in checks.php, by the block's name. A php block without a check must end by itself
 * without an error, and print what the `text` block below it shows. Any other block without a check is an error.
 */
declare(strict_types=1);

require __DIR__ . '/blocks.php';
require __DIR__ . '/client.php';
require __DIR__ . '/lab.php';
require __DIR__ . '/settings.php';

const DOCUMENTS = ['README.md', 'php/docs/api.md', 'php/docs/presence.md'];

function main(string $only): int
{
    $root = dirname(__DIR__, 2);
    $php = getenv('PHP') ?: PHP_BINARY;
    $php = str_contains($php, '/') ? $php : trim((string) shell_exec('command -v ' . escapeshellarg($php)));
    $extension = getenv('REALTIME_SO') ?: "$root/modules/realtime.so";
    is_file($extension) || throw new Exception("$extension is missing: run make first");

    $tests = [];
    $checks = require __DIR__ . '/checks.php';
    foreach (DOCUMENTS as $document) {
        // One lab for a document: its blocks build on each other's files, as they do for a reader.
        $lab = new Lab($root, $php, $extension);
        register_shutdown_function($lab->remove(...));
        $blocks = blocks("$root/$document", $document);
        foreach ($blocks as $name => $block) {
            $check = $checks[$name] ?? null;
            unset($checks[$name]);
            $tests[$name] = function () use ($block, $check, $lab): void {
                if ($block->file !== null) {
                    $lab->write($block->file, $block->code);
                }
                try {
                    $check === null ? endsByItself($block, $lab) : $check($block, $lab);
                } finally {
                    $lab->tidy();
                }
            };
        }
    }
    $tests['every check belongs to a block'] = fn () => $checks === []
        || throw new Exception('no such block: ' . implode(', ', array_keys($checks)));
    $tests['the settings table of README.md is that of src/config.rs'] = fn () =>
        readmeWithSettings($root) === file_get_contents("$root/README.md")
        || throw new Exception('it differs: run php tests/readme/settings.php --write');
    $tests['the loaded extension has these settings and defaults'] = fn () => settingsLoaded($root, $php, $extension);
    $tests['the links lead somewhere'] = fn () => links($root);

    $tests['the messages in production.md are those of the source'] = fn () => messages($root);

    $passed = $failed = 0;
    foreach ($tests as $name => $test) {
        if (!str_contains($name, $only)) {
            continue;
        }
        try {
            $test();
            $passed++;
            echo "ok      $name\n";
        } catch (Throwable $error) {
            $failed++;
            echo "FAILED  $name\n        ", str_replace("\n", "\n        ", trim($error->getMessage())), "\n";
        }
    }
    echo "\n$passed passed, $failed failed\n";
    return $failed === 0 && $passed > 0 ? 0 : 1;
}

function endsByItself(Block $block, Lab $lab): void
{
    if ($block->language !== 'php') {
        throw new Exception("line $block->line: nothing in tests/readme/checks.php says what this must do");
    }
    same($block->output ?? '', $lab->php($block->code)->ends(), $lab);
}

/** That $given is what the document shows, where … stands for anything. */
function same(string $shown, string $given, Lab $lab): void
{
    $pattern = str_replace('…', '.*', preg_quote(trim($lab->here($shown)), '~'));
    if (!preg_match("~^$pattern$~s", trim($given))) {
        throw new Exception("this should be printed:\n$shown\nand this was:\n$given");
    }
}

function settingsLoaded(string $root, string $php, string $extension): void
{
    $code = 'echo json_encode(ini_get_all("realtime", false));';
    $command = [$php, '-n', '-d', "extension=$extension", '-r', $code];
    $loaded = json_decode((string) shell_exec(implode(' ', array_map(escapeshellarg(...), $command))), true);
    $source = array_column(settingsInSource($root), 'default', 'name');
    ksort($source);
    $loaded = array_map(strval(...), $loaded ?? []);
    ksort($loaded);
    if ($loaded !== $source) {
        throw new Exception('PHP has ' . json_encode($loaded) . ', src/config.rs has ' . json_encode($source));
    }
}

/** That every relative link of the documents names a file of the project, and its heading where it names one. */
function links(string $root): void
{
    foreach ([...DOCUMENTS, 'php/docs/production.md', 'php/docs/protocol.md', 'CHANGELOG.md'] as $document) {
        preg_match_all('~\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)~', file_get_contents("$root/$document"), $links, PREG_SET_ORDER);
        foreach ($links as $link) {
            $path = $link[1] === '' ? "$root/$document" : dirname("$root/$document") . "/$link[1]";
            file_exists($path) || throw new Exception("$document links to $link[1], which does not exist");
            if (isset($link[2]) && !in_array($link[2], anchors($path), true)) {
                throw new Exception("$document links to $link[1]#$link[2], and there is no such heading");
            }
        }
    }
}

/** That every message of the table of cures stands in the source, where … is what a message fills in. */
function messages(string $root): void
{
    $source = (string) shell_exec('cat $(find ' . escapeshellarg("$root/src") . " -name '*.rs' -o -name '*.c')");
    // A long string goes on in the next line after a backslash.
    $source = preg_replace('~\\\\\n\s*~', '', $source);
    $table = strstr(file_get_contents("$root/php/docs/production.md"), '## Messages and their cures');
    preg_match_all('~^\| `(.+?)` \|~m', (string) $table, $messages);
    count($messages[1]) > 5 || throw new Exception('the table is gone');
    foreach ($messages[1] as $message) {
        foreach (preg_split('~…|"~u', $message) as $part) {
            str_contains($source, $part) || throw new Exception("nothing in src/ says \"$part\" (of \"$message\")");
        }
    }
}

/** @return list<string> the anchors that GitHub gives to a file's headings */
function anchors(string $path): array
{
    preg_match_all('~^#+ (.+)$~m', file_get_contents($path), $headings);
    return array_map(
        fn (string $heading): string => str_replace(' ', '-', preg_replace('~[^\w -]~', '', strtolower($heading))),
        $headings[1],
    );
}

exit(main($argv[1] ?? ''));
