using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Extensions.Hosting
{
    /// <summary>
    /// A server of a service that a host starts and stops. If the server ends otherwise, so does the host, as from .NET 6 on with
    /// a <see cref="BackgroundService"/> that fails.
    /// <see cref="ZeroBufferHosting.AddZeroBufferServer(IServiceCollection, string, Action{Frame}, Action{ServiceConfig})"/> adds one.
    /// </summary>
    public sealed class ZeroBufferServer : IHostedService, IDisposable
    {
        private readonly Action<Service> _start;
        private readonly ServiceConfig _config;
        private readonly IHostApplicationLifetime? _host;
        private Service? _service;
        private volatile bool _isStopping;

        /// <summary>The host waits no longer for the stop, which goes on.</summary>
        private volatile bool _isLate;

        internal ZeroBufferServer(string name, Action<Service> start, ServiceConfig config, IHostApplicationLifetime? host)
        {
            _host = host;
            Name = name;
            _start = start;
            _config = config;
        }

        /// <summary>The name that clients connect to.</summary>
        public string Name { get; }

        /// <summary>Whether it serves.</summary>
        public bool IsRunning
        {
            get
            {
                try
                {
                    return _service != null && _service.IsRunning;
                }
                catch (ObjectDisposedException)
                {
                    return false;
                }
            }
        }

        /// <summary>Creates the server, and starts its handler.</summary>
        public Task StartAsync(CancellationToken cancellationToken)
        {
            _service = Service.Create(Name, _config);
            _start(_service);
            _service.Completion.ContinueWith(
                ended => HasEnded(ended.Exception?.InnerException), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            return Task.CompletedTask;
        }

        /// <summary>A program whose server is not there should not go on as if it were.</summary>
        private void HasEnded(Exception? error)
        {
            if (!_isStopping)
            {
                _config.Logger?.LogCritical(error, "The server of {ServiceName} has ended, so the host ends", Name);
                _host?.StopApplication();
            }
        }

        /// <summary>
        /// Stops taking requests, and lets handlers finish for <see cref="ServerConfigBase.StopTimeout"/> at most, or until the
        /// token is cancelled; clients are told that what was not taken was not started. That blocks no thread.
        /// </summary>
        public async Task StopAsync(CancellationToken cancellationToken)
        {
            _isStopping = true;
            try
            {
                await (_service?.StopAsync(cancellationToken) ?? Task.CompletedTask).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                // The host disposes of it next, and is not to be kept then.
                _isLate = true;
            }
        }

        /// <summary>Stops it, if it was not stopped. After a stop whose token was cancelled it does not wait for the rest of that.</summary>
        public void Dispose()
        {
            _isStopping = true;
            if (_isLate)
            {
                // On a thread of its own.
                _ = _service?.DisposeAsync();
            }
            else
            {
                _service?.Dispose();
            }
        }
    }
}
