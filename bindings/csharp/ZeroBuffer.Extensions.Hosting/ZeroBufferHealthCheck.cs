using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Extensions.Hosting
{
    /// <summary>
    /// Whether the servers that a host has are running, and its clients' servers are there;
    /// <see cref="ZeroBufferHosting.AddZeroBuffer"/> adds it. A client that was not used yet connects.
    /// </summary>
    public sealed class ZeroBufferHealthCheck : IHealthCheck
    {
        /// <summary>For a client that was not used before.</summary>
        private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(1);

        private readonly ZeroBufferServer[] _servers;
        private readonly ZeroBufferClient[] _clients;

        /// <summary>Of the servers among <paramref name="services"/>, and these clients.</summary>
        public ZeroBufferHealthCheck(IEnumerable<IHostedService> services, IEnumerable<ZeroBufferClient> clients)
        {
            _servers = services.OfType<ZeroBufferServer>().ToArray();
            _clients = clients.ToArray();
        }

        /// <summary>What is the matter, by name, in the data of the result.</summary>
        public async Task<HealthCheckResult> CheckHealthAsync(
            HealthCheckContext context, CancellationToken cancellationToken = default)
        {
            var wrong = new Dictionary<string, object>();
            foreach (ZeroBufferServer server in _servers.Where(server => !server.IsRunning))
            {
                wrong[server.Name] = "the server does not run";
            }
            foreach (ZeroBufferClient client in _clients)
            {
                string? error = await WhatIsWrong(client, cancellationToken).ConfigureAwait(false);
                if (error != null)
                {
                    wrong[client.Name] = error;
                }
            }
            return wrong.Count == 0
                ? HealthCheckResult.Healthy()
                : new HealthCheckResult(context.Registration.FailureStatus, string.Join("; ", wrong.Select(one => one.Key + ": " + one.Value)), data: wrong);
        }

        private static async Task<string?> WhatIsWrong(ZeroBufferClient client, CancellationToken cancellationToken)
        {
            try
            {
                DuplexClient connected = await client.ConnectAsync(ConnectTimeout, cancellationToken).ConfigureAwait(false);
                return connected.IsServerConnected ? null : "no server is there";
            }
            catch (Exception error) when (!(error is OperationCanceledException))
            {
                return error.Message;
            }
        }
    }
}
