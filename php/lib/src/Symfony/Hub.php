<?php

declare(strict_types=1);

namespace Realtime\Symfony;

use Realtime\Exception;
use Symfony\Component\Mercure\Exception\InvalidArgumentException;
use Symfony\Component\Mercure\Exception\RuntimeException;
use Symfony\Component\Mercure\HubInterface;
use Symfony\Component\Mercure\Jwt\StaticTokenProvider;
use Symfony\Component\Mercure\Jwt\TokenFactoryInterface;
use Symfony\Component\Mercure\Jwt\TokenProviderInterface;
use Symfony\Component\Mercure\Update;

/**
 * Symfony's hub without HTTP: updates go straight to the extension's server, with rt_update(). Everything else (the cookie of
 * subscribers, discovery, mercure() in Twig) is as with Symfony's own Hub.
 */
final class Hub implements HubInterface
{
    /**
     * @param string $publicUrl where browsers find the server
     * @param TokenFactoryInterface|null $factory makes the tokens of subscribers, for Authorization and mercure() in Twig
     * @param TokenProviderInterface|null $provider has a publisher's token for whom asks; publish() needs none
     * @param string|null $url where PHP finds the server; null if that is the same
     */
    public function __construct(
        private readonly string $publicUrl,
        private readonly ?TokenFactoryInterface $factory = null,
        private readonly ?TokenProviderInterface $provider = null,
        private readonly ?string $url = null,
    ) {
    }

    /** One that takes the place of another and is like it in all but how it publishes: to decorate a service. */
    public static function around(HubInterface $hub): self
    {
        // Newer versions of Symfony's component ask for these two of hubs behind HTTP alone.
        $provider = method_exists($hub, 'getProvider') ? $hub->getProvider() : null;
        $url = method_exists($hub, 'getUrl') ? $hub->getUrl() : null;
        return new self($hub->getPublicUrl(), $hub->getFactory(), $provider, $url);
    }

    public function getUrl(): string
    {
        return $this->url ?? $this->publicUrl;
    }

    public function getPublicUrl(): string
    {
        return $this->publicUrl;
    }

    public function getProvider(): TokenProviderInterface
    {
        return $this->provider ?? new StaticTokenProvider('');
    }

    public function getFactory(): ?TokenFactoryInterface
    {
        return $this->factory;
    }

    /**
     * @return string the id of the update
     * @throws InvalidArgumentException if something in it is not valid
     * @throws RuntimeException if the server does not take it
     */
    public function publish(Update $update): string
    {
        try {
            return rt_update(
                $update->getTopics(),
                $update->getData(),
                $update->isPrivate(),
                $update->getId(),
                $update->getType(),
                $update->getRetry(),
            );
        } catch (\ValueError $error) {
            throw new InvalidArgumentException($error->getMessage(), 0, $error);
        } catch (Exception $error) {
            throw new RuntimeException("realtime: {$error->getMessage()}", 0, $error);
        }
    }
}
