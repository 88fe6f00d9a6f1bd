<?php
/**
 * The settings table of README.md comes from src/config.rs: names, defaults and values from SETTINGS in src/config/settings.rs, the meaning from
 * the comments of Config. run.php checks it; `php tests/readme/settings.php --write` writes it anew.
 */
declare(strict_types=1);

const SETTINGS_BEGIN = "<!-- settings: written by tests/readme/settings.php from src/config.rs -->\n";
const SETTINGS_END = "<!-- /settings -->\n";

/** @return list<array{name: string, default: string, takes: string, meaning: string}> */
function settingsInSource(string $root): array
{
    $source = file_get_contents("$root/src/config/settings.rs") . file_get_contents("$root/src/config.rs");
    preg_match('~pub const SETTINGS: .*?= &\[(.*?)\n\];~s', $source, $list);
    preg_match_all('~setting\(\s*"([^"]+)",\s*"([^"]*)",\s*Kind::\w+(?:\([^)]*\))?,\s*"([^"]*)",?\s*\)~s', $list[1] ?? '', $rows, PREG_SET_ORDER);
    preg_match('~pub struct Config \{(.*?)\n\}~s', $source, $struct);
    preg_match_all('~((?:    /// .*\n)+)    pub (\w+):~', $struct[1] ?? '', $fields, PREG_SET_ORDER);
    $meanings = [];
    foreach ($fields as [, $comment, $field]) {
        $comment = trim(preg_replace('~\s*/// ~', ' ', $comment));
        // What a link to another part of the source says is in the column of values.
        $meanings["realtime.$field"] = rtrim(preg_replace('~: one of \[`\w+`\]~', '', $comment), '.');
    }
    if (count($rows) !== substr_count($list[1] ?? '', 'setting(') || $rows === []) {
        throw new Exception('tests/readme/settings.php does not understand SETTINGS in src/config/settings.rs any more');
    }
    return array_map(fn (array $row): array => [
        'name' => $row[1],
        'default' => $row[2],
        'takes' => $row[3],
        'meaning' => $meanings[$row[1]] ?? throw new Exception("Config in src/config.rs says nothing about $row[1]"),
    ], $rows);
}

function settingsTable(string $root): string
{
    $table = "| setting | default | takes | meaning |\n|---|---|---|---|\n";
    foreach (settingsInSource($root) as $setting) {
        $default = $setting['default'] === '' ? '' : "`{$setting['default']}`";
        $takes = strtr($setting['takes'], ['<' => '&lt;', '|' => '\|', '*' => '\*']);
        $table .= "| `{$setting['name']}` | $default | $takes | {$setting['meaning']} |\n";
    }
    return $table;
}

/** README.md with the table as it should be. */
function readmeWithSettings(string $root): string
{
    $readme = file_get_contents("$root/README.md");
    $from = strpos($readme, SETTINGS_BEGIN);
    $to = strpos($readme, SETTINGS_END);
    if ($from === false || $to === false) {
        throw new Exception('README.md has lost the marks around its settings table');
    }
    return substr($readme, 0, $from) . SETTINGS_BEGIN . "\n" . settingsTable($root) . "\n" . substr($readme, $to);
}

if (realpath($argv[0]) === __FILE__ && ($argv[1] ?? '') === '--write') {
    $root = dirname(__DIR__, 2);
    file_put_contents("$root/README.md", readmeWithSettings($root));
}
