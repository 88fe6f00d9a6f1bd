<?php

declare(strict_types=1);

namespace Realtime\Laravel;

use Illuminate\Broadcasting\BroadcastManager;
use Illuminate\Contracts\Broadcasting\Factory;
use Illuminate\Support\ServiceProvider;

/**
 * Makes `'driver' => 'realtime'` known to Laravel, and a connection of that name, so that BROADCAST_CONNECTION=realtime
 * (BROADCAST_DRIVER before Laravel 11) is all that an application sets.
 */
final class RealtimeServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $config = $this->app['config'];
        if ($config->get('broadcasting.connections.realtime') === null) {
            $config->set('broadcasting.connections.realtime', ['driver' => 'realtime']);
        }
        $extend = static function (BroadcastManager $manager): void {
            $manager->extend('realtime', static fn () => new RealtimeBroadcaster());
        };
        // The application's own provider of broadcasting is deferred: whichever comes first.
        $this->app->resolving(BroadcastManager::class, $extend);
        if ($this->app->resolved(BroadcastManager::class)) {
            $extend($this->app->make(Factory::class));
        }
    }
}
