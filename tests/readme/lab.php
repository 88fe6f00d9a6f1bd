<?php
/**
 * Where the blocks of a document run: a directory of its own, a free port in place of 8080, a control socket and a
 * php.ini of its own, and every process that was started there gone at the end.
 */
declare(strict_types=1);

final class Lab
{
    public readonly string $directory;
    public readonly int $port;
    /** @var list<Program> */
    private array $programs = [];

    public function __construct(public readonly string $root, private readonly string $php, string $extension)
    {
        $this->directory = sys_get_temp_dir() . '/realtime-readme-' . bin2hex(random_bytes(4));
        mkdir("$this->directory/bin", recursive: true);
        mkdir("$this->directory/with");
        mkdir("$this->directory/without");
        // `php` in a block is the PHP under test.
        symlink($php, "$this->directory/bin/php");
        symlink("$root/modules", "$this->directory/modules");
        $settings = "realtime.socket=$this->directory/hub.sock\nrealtime.log_level=info\nrealtime.timeout=20\ndisplay_errors=stderr\nhtml_errors=0\nlog_errors=0\n";
        file_put_contents("$this->directory/without/test.ini", $settings);
        file_put_contents("$this->directory/with/test.ini", "extension=$extension\n$settings");
        $this->port = freePort();
    }

    /** The text of a block as it runs here. */
    public function here(string $code): string
    {
        return str_replace(['127.0.0.1:8080', 'localhost:8080'], "127.0.0.1:$this->port", $code);
    }

    /** Starts a PHP program with the extension loaded. */
    public function php(string $code, string $file = 'block.php', string ...$arguments): Program
    {
        $this->write($file, str_starts_with($code, '<?php') ? $code : "<?php\n$code");
        return $this->start([$this->php, ...$arguments, $file], "$this->directory/with");
    }

    /** Starts a PHP file that was written here, with an argument of its own. */
    public function run(string $file, string $argument, string ...$options): Program
    {
        return $this->start([$this->php, ...$options, $file, $argument], "$this->directory/with");
    }

    /** Starts a shell block as it stands, without the extension loaded: loading it is the block's business. */
    public function shell(string $code): Program
    {
        return $this->start(['bash', '-euo', 'pipefail', '-c', $this->here($code)], "$this->directory/without");
    }

    /** Opens a page that is served on this lab's port in a browser; what it prints is the browser's console. */
    public function browse(string $target): Program
    {
        return $this->start([
            'chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync',
            '--disable-dev-shm-usage', '--enable-logging=stderr', '--v=0', '--remote-debugging-port=0',
            "--user-data-dir=$this->directory/browser", "http://127.0.0.1:$this->port$target",
        ], "$this->directory/without");
    }

    public function write(string $file, string $content): void
    {
        $path = "$this->directory/$file";
        is_dir(dirname($path)) || mkdir(dirname($path), recursive: true);
        file_put_contents($path, $this->here($content));
    }

    /** Returns as soon as the server of this lab answers. */
    public function ready(?Program $server = null): void
    {
        $until = microtime(true) + PATIENCE;
        while (!$stream = @stream_socket_client("tcp://127.0.0.1:$this->port")) {
            if ($server !== null && !$server->running()) {
                throw new Exception('the program ended before it served anybody: ' . $server->output());
            }
            if (microtime(true) > $until) {
                throw new Exception('nobody serves on the port' . ($server === null ? '' : ': ' . $server->output()));
            }
            usleep(10_000);
        }
        fclose($stream);
    }

    /** Ends what still runs, for the next block. */
    public function tidy(): void
    {
        foreach ($this->programs as $program) {
            $program->kill();
        }
        $this->programs = [];
    }

    public function remove(): void
    {
        $this->tidy();
        exec('rm -rf ' . escapeshellarg($this->directory));
    }

    /** @param list<string> $command */
    private function start(array $command, string $settings): Program
    {
        $environment = [
            // No php.ini of this machine, only ours.
            'PHPRC' => $settings, 'PHP_INI_SCAN_DIR' => $settings,
            'PATH' => "$this->directory/bin:" . getenv('PATH'),
        ] + getenv();
        return $this->programs[] = new Program($command, $this->directory, $environment);
    }
}

/** A process in a process group of its own. */
final class Program
{
    /** @var resource */
    private $process;
    private string $log;
    private ?int $status = null;

    /**
     * @param list<string> $command
     * @param array<string, string> $environment
     */
    public function __construct(array $command, string $directory, array $environment)
    {
        $this->log = "$directory/" . bin2hex(random_bytes(4)) . '.log';
        // setsid: to stop it with all that it started, a browser's many processes too.
        $this->process = proc_open(
            ['setsid', ...$command],
            [['file', '/dev/null', 'r'], ['file', $this->log, 'w'], ['redirect', 1]],
            $pipes,
            $directory,
            $environment,
        );
    }

    public function running(): bool
    {
        $status = proc_get_status($this->process);
        if (!$status['running'] && $this->status === null) {
            $this->status = $status['signaled'] ? 128 + $status['termsig'] : $status['exitcode'];
        }
        return $status['running'];
    }

    /** What it has printed so far, errors too. */
    public function output(): string
    {
        return file_get_contents($this->log);
    }

    /** Waits until it has printed $text. */
    public function prints(string $text, float $patience = PATIENCE): void
    {
        $this->matches('~' . preg_quote($text, '~') . '~', $patience);
    }

    /** Waits until it has printed something that fits $pattern. */
    public function matches(string $pattern, float $patience = PATIENCE): void
    {
        $until = microtime(true) + $patience;
        while (!preg_match($pattern, $this->output())) {
            if (microtime(true) > $until || !$this->running() && !preg_match($pattern, $this->output())) {
                throw new Exception("\"$pattern\" was not printed, but this: " . ($this->output() ?: '(nothing)'));
            }
            usleep(10_000);
        }
    }

    /** Waits until it has ended by itself, well, and returns what it printed. */
    public function ends(float $patience = PATIENCE): string
    {
        for ($until = microtime(true) + $patience; $this->running(); usleep(10_000)) {
            if (microtime(true) > $until) {
                throw new Exception('it did not end: ' . $this->output());
            }
        }
        if ($this->status !== 0) {
            throw new Exception("it ended with $this->status: " . $this->output());
        }
        return $this->output();
    }

    /** Stops it as an operator would; it must end well. */
    public function stop(): string
    {
        // It serves a little before it waits in rt_run(), which SIGTERM ends: before that it would end the process.
        $until = microtime(true) + PATIENCE;
        while ($this->running() && !$this->sleeps() && microtime(true) < $until) {
            usleep(1_000);
        }
        if (!$this->running()) {
            throw new Exception("it ended too early, with $this->status: " . $this->output());
        }
        posixKill(-$this->pid(), 15);
        return $this->ends();
    }

    public function kill(): void
    {
        if ($this->running()) {
            posixKill(-$this->pid(), 9);
        }
        proc_close($this->process);
    }

    private function sleeps(): bool
    {
        // The name stands in brackets and may hold anything.
        return str_starts_with((string) strrchr((string) @file_get_contents("/proc/{$this->pid()}/stat"), ')'), ') S ');
    }

    private function pid(): int
    {
        return proc_get_status($this->process)['pid'];
    }
}

/** kill(2) without ext-posix, which `php -n` does not have. */
function posixKill(int $pid, int $signal): void
{
    // bash and not sh: the kill of dash knows no groups.
    exec("bash -c 'kill -$signal -- $pid' 2>/dev/null");
}

/** Below the ports that the system gives to clients: one of those could be taken again before the server has it. */
function freePort(): int
{
    do {
        $port = random_int(20_000, 30_000);
    } while (!@stream_socket_server("tcp://127.0.0.1:$port"));
    return $port;
}
