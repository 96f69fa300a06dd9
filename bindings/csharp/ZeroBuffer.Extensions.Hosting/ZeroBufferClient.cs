using Microsoft.Extensions.DependencyInjection;
using System;
using System.Diagnostics;
using System.Runtime.ExceptionServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Extensions.Hosting
{
    /// <summary>
    /// A client for the whole application. It connects from its first use on, however long before its server starts, and
    /// mends itself afterwards (<see cref="ClientConfig.Connections"/>). <see cref="ZeroBufferHosting.AddZeroBufferClient"/> adds
    /// one.
    /// </summary>
    /// <remarks>Any number of threads may use it at once, and it blocks none of them.</remarks>
    public sealed class ZeroBufferClient : IDisposable
    {
        /// <summary>
        /// How long one attempt to connect takes. A server that has many clients to let in, or a large ring to make, needs its
        /// time to accept one, and an attempt that ends before begins at the end of its line again. The thread that connects sees
        /// that late that this was disposed of, and nobody waits for it.
        /// </summary>
        private static readonly TimeSpan Attempt = TimeSpan.FromSeconds(5);

        private readonly ClientConfig _config;
        private readonly object _gate = new object();
        private Task<DuplexClient>? _connecting;
        private volatile ZeroBufferException? _whyNot;

        /// <summary>When this is disposed of.</summary>
        private readonly TaskCompletionSource<bool> _end =
            new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);

        internal ZeroBufferClient(string name, ClientConfig config)
        {
            Name = name;
            _config = config;
        }

        /// <summary>The name of the service or channel.</summary>
        public string Name { get; }

        /// <summary>
        /// Sends a copy of <paramref name="data"/> and waits for the response, connecting before if that was not done, all within
        /// the timeout. The rest is as with <see cref="DuplexClient.CallAsync"/>.
        /// </summary>
        /// <exception cref="NotRunningException">Through the task: no server was there in time.</exception>
        public Task<Response> CallAsync(
            ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellationToken = default)
        {
            Task<DuplexClient> connecting = Connecting();
            return connecting.IsCompletedSuccessfully
                ? connecting.Result.CallAsync(data, timeout, cancellationToken)
                : ConnectAndCallAsync(data, timeout, cancellationToken);
        }

        private async Task<Response> ConnectAndCallAsync(
            ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellationToken)
        {
            // The caller may use its bytes again once this has returned.
            byte[] copy = data.ToArray();
            var since = Stopwatch.StartNew();
            DuplexClient client = await ConnectAsync(timeout, cancellationToken).ConfigureAwait(false);
            TimeSpan left = timeout - since.Elapsed;
            if (timeout == Timeout.InfiniteTimeSpan || left < TimeSpan.Zero)
            {
                left = timeout == Timeout.InfiniteTimeSpan ? timeout : TimeSpan.Zero;
            }
            return await client.CallAsync(copy, left, cancellationToken).ConfigureAwait(false);
        }

        /// <summary>The client itself, once it has connected to a server. This object disposes of it.</summary>
        /// <exception cref="NotRunningException">Through the task: no server was there in time.</exception>
        /// <exception cref="ObjectDisposedException">Through the task: this was disposed of.</exception>
        public async Task<DuplexClient> ConnectAsync(TimeSpan timeout, CancellationToken cancellationToken = default)
        {
            Task<DuplexClient> connecting = Connecting();
            if (!connecting.IsCompleted)
            {
                using (var waited = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken))
                {
                    Task late = Task.Delay(Waitable(timeout), waited.Token);
                    await Task.WhenAny(connecting, _end.Task, late).ConfigureAwait(false);
                    waited.Cancel();
                }
                cancellationToken.ThrowIfCancellationRequested();
                ThrowIfDisposed();
            }
            return connecting.IsCompleted ? await connecting.ConfigureAwait(false) : throw Late();
        }

        private void ThrowIfDisposed()
        {
            if (_end.Task.IsCompleted)
            {
                throw new ObjectDisposedException(nameof(ZeroBufferClient));
            }
        }

        /// <summary>For the runtime's own waits: what is longer than they can be is for ever.</summary>
        private static TimeSpan Waitable(TimeSpan timeout) =>
            timeout.TotalMilliseconds > int.MaxValue ? Timeout.InfiniteTimeSpan : timeout;

        private Exception Late()
        {
            if (_whyNot != null)
            {
                ExceptionDispatchInfo.Throw(_whyNot);
            }
            return new TimeoutException("there was no time to connect to " + Name);
        }

        /// <summary>The one attempt to connect; a new one if it has failed for good, which may have been mended.</summary>
        private Task<DuplexClient> Connecting()
        {
            lock (_gate)
            {
                if (_connecting == null || _connecting.IsFaulted)
                {
                    _connecting = StartConnecting();
                }
                return _connecting;
            }
        }

        /// <summary>It may go on for long, and keeps nothing of the context of the first caller.</summary>
        private Task<DuplexClient> StartConnecting()
        {
            bool flows = !ExecutionContext.IsFlowSuppressed();
            if (flows)
            {
                ExecutionContext.SuppressFlow();
            }
            try
            {
                return Seen(Task.Factory.StartNew(
                    Connect, CancellationToken.None,
                    TaskCreationOptions.LongRunning | TaskCreationOptions.RunContinuationsAsynchronously, TaskScheduler.Default));
            }
            finally
            {
                if (flows)
                {
                    ExecutionContext.RestoreFlow();
                }
            }
        }

        /// <summary>Who has stopped waiting for a connection does not have to ask why it failed later.</summary>
        private static Task<DuplexClient> Seen(Task<DuplexClient> connecting)
        {
            connecting.ContinueWith(
                failed => failed.Exception, CancellationToken.None,
                TaskContinuationOptions.OnlyOnFaulted | TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
            return connecting;
        }

        /// <summary>On a thread of its own, which ends when a server is there.</summary>
        private DuplexClient Connect()
        {
            // The first one is short, so that those who wait soon hear why there is no connection.
            for (TimeSpan patience = TimeSpan.Zero; ; patience = Attempt)
            {
                ThrowIfDisposed();
                try
                {
                    return DuplexClient.Connect(Name, patience, _config);
                }
                catch (ZeroBufferException error) when (MayPass(error))
                {
                    _whyNot = error;
                }
            }
        }

        /// <summary>What the native library waits for, too.</summary>
        private static bool MayPass(ZeroBufferException error) =>
            error is NotRunningException || error is BusyException || error is NoSpaceException;

        /// <summary>
        /// Ends it, with the calls that are under way, as <see cref="DuplexClient.Dispose"/>. It does not wait for an attempt to
        /// connect: what that connects is closed at once.
        /// </summary>
        public void Dispose()
        {
            _end.TrySetResult(true);
            lock (_gate)
            {
                _connecting ??= Seen(Task.FromException<DuplexClient>(new ObjectDisposedException(nameof(ZeroBufferClient))));
                _connecting.ContinueWith(
                    connected => connected.Result.Dispose(), CancellationToken.None,
                    TaskContinuationOptions.OnlyOnRanToCompletion | TaskContinuationOptions.ExecuteSynchronously,
                    TaskScheduler.Default);
            }
        }
    }
}
