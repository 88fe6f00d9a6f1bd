<?php
/**
 * The parts of a Laravel application that broadcast: the container, the event, its channels file and the route of Echo. It
 * serves the route by itself and broadcasts when it is told to.
 */

use Illuminate\Broadcasting\BroadcastServiceProvider;
use Illuminate\Broadcasting\EncryptedPrivateChannel;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PresenceChannel;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Bus\BusServiceProvider;
use Illuminate\Config\Repository;
use Illuminate\Container\Container;
use Illuminate\Contracts\Broadcasting\ShouldBroadcastNow;
use Illuminate\Events\EventServiceProvider;
use Illuminate\Http\Request;
use Illuminate\Routing\RoutingServiceProvider;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Facade;

error_reporting(E_ALL & ~E_DEPRECATED); // Debian's Laravel is older than its PHP
foreach (['Broadcasting', 'Routing', 'Http', 'Events', 'Container', 'Bus', 'Config'] as $part) {
    require "Illuminate/$part/autoload.php";
}
require 'ROOT/tests/library/autoload.php';

final class Order implements ShouldBroadcastNow
{
    use InteractsWithSockets;

    public function __construct(public int $id, public string $status)
    {
    }

    public function broadcastOn()
    {
        return [new PrivateChannel("orders.$this->id"), 'orders', new PresenceChannel('staff')];
    }
}

final class Secret implements ShouldBroadcastNow
{
    public string $word = 'sesame';

    public function broadcastOn()
    {
        return new EncryptedPrivateChannel('orders.7');
    }
}

/** Who asks, as an application's guard would find out. */
final class User
{
    public function __construct(public readonly string $name)
    {
    }

    public function getAuthIdentifier(): string
    {
        return $this->name;
    }
}

/** What Illuminate\Foundation\Application is for, which is no package of its own. */
final class App extends Container
{
    public function boot(string ...$providers): void
    {
        foreach ($providers = array_map(fn ($class) => new $class($this), $providers) as $provider) {
            $provider->register();
        }
        foreach ($providers as $provider) {
            method_exists($provider, 'boot') && $this->call([$provider, 'boot']);
        }
    }

    public function routesAreCached(): bool
    {
        return false;
    }
}

App::setInstance($app = new App());
$app->instance('app', $app);
$app->alias('request', Request::class);
$app->instance('config', new Repository(['broadcasting' => ['default' => 'realtime', 'connections' => []]]));
Facade::setFacadeApplication($app);
$app->boot(
    EventServiceProvider::class, RoutingServiceProvider::class, BusServiceProvider::class,
    BroadcastServiceProvider::class, Realtime\Laravel\RealtimeServiceProvider::class,
);
$app->bind(Illuminate\Contracts\Broadcasting\Factory::class, fn ($app) => $app->make(Illuminate\Broadcasting\BroadcastManager::class));

// routes/channels.php
Broadcast::channel('orders.{id}', fn (User $user, $id) => $user->name === 'ann' && $id === '7');
Broadcast::channel('staff', fn (User $user) => $user->name === 'bob' ? false : ['name' => ucfirst($user->name)]);

// Laravel 9's, in a provider of the application.
if (method_exists(Realtime\Laravel\RealtimeBroadcaster::class, 'resolveAuthenticatedUserUsing')) {
    Broadcast::resolveAuthenticatedUserUsing(fn (Request $request) => $request->input('user') === null ? null : [
        'id' => $request->input('user'), 'user_info' => ['name' => ucfirst($request->input('user'))], 'watchlist' => ['bob'],
    ]);
}

/** What the HTTP kernel does with Echo's request. */
function route(App $app, array $input): array
{
    Broadcast::routes(['middleware' => []]);
    $request = Request::create('/broadcasting/auth', 'POST', $input);
    $request->setUserResolver(fn () => isset($input['user']) ? new User($input['user']) : null);
    $app->instance('request', $request);
    try {
        $response = $app['router']->dispatch($request);
        return ['status' => $response->getStatusCode(), 'body' => json_decode($response->getContent(), true)];
    } catch (Symfony\Component\HttpKernel\Exception\HttpException $error) {
        return ['status' => $error->getStatusCode(), 'body' => $error->getMessage()];
    }
}

/** What Laravel 9's controller of /broadcasting/user-auth does. */
function userRoute(array $input): array
{
    $request = Request::create('/broadcasting/user-auth', 'POST', $input);
    try {
        $answer = Broadcast::resolveAuthenticatedUser($request);
        return ['status' => $answer === null ? 403 : 200, 'body' => $answer];
    } catch (Symfony\Component\HttpKernel\Exception\HttpException $error) {
        return ['status' => $error->getStatusCode(), 'body' => null];
    }
}

rt_on_message(fn (Realtime\Message $m) => route($app, $m->data), 'auth');
rt_on_message(function (Realtime\Message $m) use ($app) {
    // What the middleware of a request with Echo's X-Socket-ID does.
    $app->instance('request', Request::create('/', 'POST', [], [], [], ['HTTP_X_SOCKET_ID' => $m->data['socket'] ?? '']));
    $app->make(Illuminate\Contracts\Broadcasting\Factory::class);
    $pending = broadcast(new Order(7, $m->data['status']));
    isset($m->data['socket']) && $pending->toOthers();
}, 'ship');
rt_on_message(function () use ($app) {
    broadcast(new Secret());
    $sent = rt_history($channel = 'private-encrypted-orders.7')[0];
    $secret = route($app, ['user' => 'ann', 'channel_name' => $channel, 'socket_id' => '1.2'])['body']['shared_secret'];
    ['nonce' => $nonce, 'ciphertext' => $text] = array_map('base64_decode', $sent['data']);
    return [$sent['event'], array_keys($sent['data']), json_decode(sodium_crypto_secretbox_open($text, $nonce, base64_decode($secret)))];
}, 'seal');
rt_on_message(fn (Realtime\Message $m) => $m->from->id, 'who');
rt_on_message(fn (Realtime\Message $m) => userRoute($m->data), 'sign-in');
rt_listen('127.0.0.1:8080');
rt_run();

/** The framework's helper, which is not in a package of its own. */
function broadcast($event)
{
    return app(Illuminate\Contracts\Broadcasting\Factory::class)->event($event);
}

function app($name)
{
    return App::getInstance()->make($name);
}
