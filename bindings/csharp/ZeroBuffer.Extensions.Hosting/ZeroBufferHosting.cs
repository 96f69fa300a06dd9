using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using ZeroBuffer;
using ZeroBuffer.Extensions.Hosting;

// Where programs look for what can be added.
namespace Microsoft.Extensions.DependencyInjection
{
    /// <summary>Servers and clients of a host.</summary>
    public static class ZeroBufferHosting
    {
        private const string ReturnsNothing =
            "a handler edits the frame and returns nothing; one that is async takes a token, too, and is waited for";

        /// <summary>
        /// Serves the service <paramref name="name"/> as long as the host runs, and stops gracefully with it; see
        /// <see cref="InPlaceServer.Start(Action{Frame})"/>. May be called for any number of names.
        /// </summary>
        /// <example>
        /// <code>
        /// services.AddZeroBufferServer("invert", frame => frame.Data.Reverse(), config => config.Workers = 2);
        /// </code>
        /// </example>
        public static IServiceCollection AddZeroBufferServer(
            this IServiceCollection services, string name, Action<Frame> handler, Action<ServiceConfig>? configure = null) =>
            Add(services, name, server => server.Start(handler), configure);

        /// <summary>The same with an <c>async</c> handler; see <see cref="InPlaceServer.Start(Func{Frame, CancellationToken, Task})"/>.</summary>
        public static IServiceCollection AddZeroBufferServer(
            this IServiceCollection services, string name, Func<Frame, CancellationToken, Task> handler,
            Action<ServiceConfig>? configure = null) =>
            Add(services, name, server => server.Start(handler), configure);

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(ReturnsNothing, true)]
        public static IServiceCollection AddZeroBufferServer<T>(
            this IServiceCollection services, string name, Func<Frame, T> handler, Action<ServiceConfig>? configure = null) =>
            throw new ArgumentException(ReturnsNothing, nameof(handler));

        private static IServiceCollection Add(
            IServiceCollection services, string name, Action<Service> start, Action<ServiceConfig>? configure)
        {
            return services.AddSingleton<IHostedService>(provider =>
            {
                var config = new ServiceConfig { Logger = provider.GetService<ILogger<ZeroBufferServer>>() };
                configure?.Invoke(config);
                return new ZeroBufferServer(name, start, config, provider.GetService<IHostApplicationLifetime>());
            });
        }

        /// <summary>
        /// Adds a <see cref="ZeroBufferClient"/> for <paramref name="name"/>, which connects when it is first used and mends
        /// itself. May be called for any number of names; see <see cref="GetZeroBufferClient"/>.
        /// </summary>
        /// <example>
        /// <code>
        /// services.AddZeroBufferClient("invert", config => config.Connections = 4);
        /// </code>
        /// </example>
        public static IServiceCollection AddZeroBufferClient(
            this IServiceCollection services, string name, Action<ClientConfig>? configure = null)
        {
            return services.AddSingleton(provider =>
            {
                var config = new ClientConfig { Connections = 1, Logger = provider.GetService<ILogger<ZeroBufferClient>>() };
                configure?.Invoke(config);
                return new ZeroBufferClient(name, config);
            });
        }

        /// <summary>The client for <paramref name="name"/>, where there are several.</summary>
        /// <exception cref="InvalidOperationException">None was added.</exception>
        public static ZeroBufferClient GetZeroBufferClient(this IServiceProvider provider, string name)
        {
            foreach (ZeroBufferClient client in provider.GetServices<ZeroBufferClient>())
            {
                if (client.Name == name)
                {
                    return client;
                }
            }
            throw new InvalidOperationException("there is no client for " + name + ": add it with AddZeroBufferClient");
        }

        /// <summary>Adds the check <see cref="ZeroBufferHealthCheck"/> of all servers and clients.</summary>
        public static IHealthChecksBuilder AddZeroBuffer(
            this IHealthChecksBuilder builder, string name = "zerobuffer", HealthStatus? failureStatus = null,
            IEnumerable<string>? tags = null) =>
            builder.AddCheck<ZeroBufferHealthCheck>(name, failureStatus, tags);
    }
}
