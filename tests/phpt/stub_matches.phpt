--TEST--
php/realtime.stub.php says what the extension is
--EXTENSIONS--
realtime
--INI--
--FILE--
<?php
/** A function or method as one line, without its body. */
function signature(ReflectionFunctionAbstract $f): string
{
    $parameters = array_map(function (ReflectionParameter $p): string {
        $default = $p->isOptional() ? ' = ' . var_export($p->getDefaultValue(), true) : '';
        return "{$p->getType()} \${$p->getName()}$default";
    }, $f->getParameters());
    $modifiers = $f instanceof ReflectionMethod ? implode(' ', Reflection::getModifierNames($f->getModifiers())) . ' ' : '';
    return "$modifiers{$f->getName()}(" . implode(', ', $parameters) . '): ' . ($f->getReturnType() ?? 'resource');
}
function property(ReflectionProperty $p): string
{
    return implode(' ', Reflection::getModifierNames($p->getModifiers())) . " {$p->getType()} \${$p->getName()}";
}
/** A class as lines: itself, its properties, its methods. */
function lines(ReflectionClass $c): array
{
    $own = fn(array $members) => array_filter($members, fn($m) => $m->class === $c->getName());
    return [
        implode(' ', Reflection::getModifierNames($c->getModifiers())) . " class {$c->getShortName()} extends "
            . (($c->getParentClass() ?: null)?->getName() ?? 'nothing') . ' implements ' . implode(', ', $c->getInterfaceNames()),
        ...array_map(property(...), $own($c->getProperties())),
        ...array_map(signature(...), $own($c->getMethods())),
    ];
}
function compare(string $what, array $stub, array $extension): void
{
    foreach (array_diff($stub, $extension) as $line) {
        echo "$what, only in the stub: $line\n";
    }
    foreach (array_diff($extension, $stub) as $line) {
        echo "$what, only in the extension: $line\n";
    }
}
function documented(string $what, string|false $comment, bool $errors): void
{
    if (!$comment) {
        echo "$what has no doc comment\n";
    } elseif ($errors && !preg_match('/@throws|Throws nothing/', $comment)) {
        echo "the doc comment of $what does not say what it throws\n";
    }
}

// The stub under another name: what is declared already cannot be declared again.
$source = file_get_contents(dirname(__DIR__, 2) . '/php/realtime.stub.php');
$source = preg_replace('/^namespace \{/m', 'namespace Stub {', $source);
$source = preg_replace('/^namespace Realtime \{/m', 'namespace Stub\Realtime {', $source);
$source = str_replace(['@throws Realtime\\', 'list<Realtime\\'], ['@throws \\', 'list<\\'], $source);
// Bodies, so that compiling does not ask for returns; the compiler does not mind that they are never called.
eval('?>' . $source);

$extension = new ReflectionExtension('realtime');
$functions = $extension->getFunctions();
$stubs = array_map(fn($name) => new ReflectionFunction($name),
    array_filter(get_defined_functions()['user'], fn($name) => str_starts_with($name, 'stub\\')));
$plain = fn($f) => str_replace(['Stub\\Realtime', 'Stub\\'], ['Realtime', ''], signature($f));
compare('functions', array_map($plain, $stubs), array_map($plain, array_values($functions)));
foreach ($stubs as $f) {
    documented($f->getShortName() . '()', $f->getDocComment(), true);
}
$count = count($stubs);

$classes = $extension->getClasses();
foreach ($classes as $name => $class) {
    if (!class_exists("Stub\\$name", false)) {
        echo "$name is not in the stub\n";
        continue;
    }
    $stub = new ReflectionClass("Stub\\$name");
    $tidy = fn(array $lines) => str_replace('Stub\\', '', $lines);
    compare($name, $tidy(lines($stub)), lines($class));
    documented($name, $stub->getDocComment(), false);
    foreach ([...$stub->getProperties(), ...$stub->getMethods()] as $member) {
        if ($member->class === $stub->getName()) {
            documented("$name::{$member->getName()}", $member->getDocComment(), $member instanceof ReflectionMethod);
            $count++;
        }
    }
}
foreach (get_declared_classes() as $name) {
    if (str_starts_with($name, 'Stub\\') && !isset($classes[substr($name, 5)])) {
        echo "$name is only in the stub\n";
    }
}
echo $count > 40 ? "compared\n" : "only $count compared\n";
?>
--EXPECTF--
compared
