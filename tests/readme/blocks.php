<?php
/**
 * Finds the fenced code blocks of a Markdown file. Where a block stands gives it its name:
 * "README.md#first-push html" is the html block under the heading "First push", "... html 2" the second one there.
 */
declare(strict_types=1);

final class Block
{
    public function __construct(
        public readonly string $name,
        public readonly string $language,
        /** The file name that the text just above the block gives it in backquotes, as in "`push.php`:". */
        public readonly ?string $file,
        public readonly string $code,
        public readonly string $document,
        public readonly int $line,
        /** What it prints, if a block of language "text" follows it under the same heading. */
        public ?string $output = null,
    ) {
    }
}

/** @return array<string, Block> by name, in the order of the document */
function blocks(string $path, string $document): array
{
    $blocks = [];
    $counts = [];
    $heading = $above = $code = '';
    $open = $last = null;
    foreach (file($path, FILE_IGNORE_NEW_LINES) as $number => $line) {
        if ($open !== null) {
            if (trim($line) !== '```') {
                $code .= "$line\n";
                continue;
            }
            [$language, $from] = $open;
            $open = null;
            if ($language === 'text' && $last !== null) {
                $last->output = $code;
                continue;
            }
            $file = preg_match('~`([\w./-]+\.\w+)`:?\s*$~', $above, $found) ? $found[1] : null;
            $count = $counts[$heading][$language] = ($counts[$heading][$language] ?? 0) + 1;
            $name = "$document#$heading $language" . ($count > 1 ? " $count" : '');
            $last = $blocks[$name] = new Block($name, $language, $file, $code, $document, $from);
            $above = '';
        } elseif (preg_match('~^```(\S*)~', $line, $found)) {
            if ($found[1] === '') {
                throw new Exception("$document:" . ($number + 1) . ': a code block needs a language');
            }
            $open = [$found[1], $number + 1];
            $code = '';
        } elseif (preg_match('~^#+ (.+)~', $line, $found)) {
            $heading = trim(preg_replace('~[^a-z0-9_]+~', '-', strtolower($found[1])), '-');
            $last = null;
        } elseif (trim($line) !== '') {
            $above = $line;
        }
    }
    if ($open !== null) {
        throw new Exception("$document:$open[1]: a code block is never closed");
    }
    return $blocks;
}
