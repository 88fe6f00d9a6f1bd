<?php
/**
 * Reads `cargo metadata` from standard input and fails when a library that is linked in has a licence outside
 * the list below, or none.
 */
declare(strict_types=1);

const ALLOWED = [
    'MIT', 'MIT-0', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'Zlib', '0BSD', 'CC0-1.0', 'Unlicense',
    'Unicode-3.0', 'BSL-1.0',
];

/** Whether an SPDX expression can be met with ALLOWED alone: one side of each OR, both sides of each AND. */
function allowed(string $expression): bool
{
    // Old crates write "MIT/Apache-2.0" and mean OR. An exception (WITH) only adds permissions.
    $expression = preg_replace(['~/~', '~ WITH [\w.-]+~'], [' OR ', ''], $expression);
    preg_match_all('~[()]|[\w.+-]+~', $expression, $matches);
    $tokens = $matches[0];
    $result = anyOf($tokens);
    return $result && $tokens === [];
}

/** @param list<string> $tokens what is left to read */
function anyOf(array &$tokens): bool
{
    $result = allOf($tokens);
    while (($tokens[0] ?? null) === 'OR') {
        array_shift($tokens);
        $result = allOf($tokens) || $result;
    }
    return $result;
}

/** @param list<string> $tokens */
function allOf(array &$tokens): bool
{
    $result = one($tokens);
    while (($tokens[0] ?? null) === 'AND') {
        array_shift($tokens);
        $result = one($tokens) && $result;
    }
    return $result;
}

/** @param list<string> $tokens */
function one(array &$tokens): bool
{
    $token = array_shift($tokens);
    if ($token !== '(') {
        return in_array($token, ALLOWED, true);
    }
    $result = anyOf($tokens);
    return array_shift($tokens) === ')' && $result;
}

// The parser first: a check that lets everything through would look just like a clean tree.
$cases = [
    'MIT' => true, 'MIT OR GPL-3.0' => true, 'MIT/GPL-2.0' => true, '(MIT OR GPL-3.0) AND Unicode-3.0' => true,
    'Apache-2.0 WITH LLVM-exception' => true, 'GPL-3.0' => false, 'MIT AND GPL-3.0' => false, '' => false,
    'MIT AND (GPL-3.0 OR LGPL-3.0)' => false, '(MIT' => false,
];
foreach ($cases as $expression => $expected) {
    if (allowed($expression) !== $expected) {
        fwrite(STDERR, "tests/licences.php reads \"$expression\" wrongly\n");
        exit(1);
    }
}

$packages = json_decode(stream_get_contents(STDIN), true, flags: JSON_THROW_ON_ERROR)['packages'];
$refused = array_filter($packages, fn (array $package): bool => !allowed($package['license'] ?? ''));
foreach ($refused as $package) {
    $licence = $package['license'] ?? 'none given';
    fwrite(STDERR, "{$package['name']} {$package['version']}: licence not on the list: $licence\n");
}
printf("%d libraries, %d with a licence that is not on the list\n", count($packages), count($refused));
exit($refused === [] && count($packages) > 1 ? 0 : 1);
