using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using System;
using System.Diagnostics;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>A server of any kind.</summary>
    /// <remarks>
    /// A server that was started serves until it is stopped or disposed, whether or not anything refers to it; when the
    /// process exits in order it is stopped. Handlers run on threads of the native library. What a handler throws
    /// ends neither the thread nor the server. Stopping it, and disposing of it, end the wait of a thread that receives.
    /// A handler that stops or disposes of its own server begins that, and does not wait for it: the server ends once the
    /// handler has returned.
    /// </remarks>
    public abstract unsafe class DuplexServer : IDisposable, IAsyncDisposable
    {
        private protected const uint InPlace = 0;
        private protected const uint Mutable = 1;
        private protected const uint Immutable = 2;

        /// <summary>If the configuration has none.</summary>
        private static readonly TimeSpan DefaultStopTimeout = TimeSpan.FromSeconds(2);

        private readonly ServerHandle _handle = new ServerHandle();
        private readonly string _name;
        private readonly ILogger _logger;
        private readonly TimeSpan _stopTimeout;
        private readonly TaskCompletionSource<bool> _completion =
            new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);

        /// <summary>1 once a handler was started.</summary>
        private int _isStarted;

        /// <summary>1 once a thread stops it.</summary>
        private int _isStopping;

        /// <summary>Why an async handler gets no requests any more.</summary>
        private Exception? _failure;
        private volatile RequestTasks? _tasks;
        private RequestQueue? _queue;
        private bool _hasQueue;
        private object _lock = new object();

        private volatile bool _isDisposed;

        /// <summary>When it was disposed of.</summary>
        private volatile int _lastClients;

        private protected DuplexServer(string name, ServerConfigBase config, uint kind)
        {
            byte[] zeroTerminated = Interop.Name(name);
            if (config == null)
            {
                throw new ArgumentNullException(nameof(config));
            }
            _name = name;
            _logger = config.Logger ?? NullLogger.Instance;
            _stopTimeout = config.StopTimeout ?? DefaultStopTimeout;
            fixed (byte* text = zeroTerminated)
            fixed (byte* metadata = config.Metadata)
            {
                IntPtr made;
                var length = (UIntPtr)(config.Metadata?.Length ?? 0);
                ZeroBufferException.ThrowIfFailed(config.Create(text, kind, metadata, length, &made));
                _handle.Take(made);
            }
        }

        /// <summary>
        /// What a handler has thrown. It is raised on the handler's thread, after which the server goes on; what is thrown
        /// here is logged.
        /// </summary>
        /// <example>
        /// <code>
        /// server.OnError += (sender, e) => Console.Error.WriteLine(e.Exception);
        /// </code>
        /// </example>
        public event EventHandler<ErrorEventArgs>? OnError;

        /// <summary>The name of the channel or service.</summary>
        public string Name => _name;

        /// <summary>
        /// Ends when the server has stopped: by <see cref="Stop"/>, when it is disposed of, or for a reason of its own, with
        /// which it fails then, as when another server has taken its name.
        /// </summary>
        /// <example>
        /// <code>
        /// server.Start(frame => frame.Data.Reverse());
        /// await server.Completion; // until somebody stops it
        /// </code>
        /// </example>
        public Task Completion => _completion.Task;

        /// <summary>
        /// Whether threads are serving: false before <c>Start</c>, after <see cref="Stop"/>, and if the server had to stop
        /// for a reason of its own.
        /// </summary>
        public bool IsRunning
        {
            get
            {
                _handle.ThrowIfFreed();
                return Volatile.Read(ref _isStarted) == 1 && Volatile.Read(ref _isStopping) == 0;
            }
        }

        /// <summary>Whether a client is attached at this moment.</summary>
        public bool IsClientConnected => CountClients() > 0;

        private protected int CountClients()
        {
            if (!_handle.Visit())
            {
                _handle.ThrowIfFreed();
                return _lastClients;
            }
            var clients = (int)Native.zb_server_clients(_handle.Inside);
            _handle.EndVisit();
            return clients;
        }

        private protected void Serve(Action<Frame> handler) => Start(() =>
        {
            IntPtr server = _handle.Enter();
            try
            {
                HandlerThunk.Start(server, handler, this);
            }
            finally
            {
                _handle.Leave();
            }
        });

        private protected void Serve(Func<Frame, CancellationToken, Task> handler) =>
            Start(() => _tasks = new RequestTasks(this, ReceiveDetached, handler));

        private void Start(Action start)
        {
            _handle.ThrowIfEnded();
            if (Volatile.Read(ref _queue) != null || Volatile.Read(ref _isStopping) == 1
                || Interlocked.Exchange(ref _isStarted, 1) == 1)
            {
                throw new InvalidStateException("the server was started or stopped before, or requests are received from it");
            }
            // Until it is stopped, somebody refers to it.
            AppDomain.CurrentDomain.ProcessExit += StopAtExit;
            try
            {
                start();
            }
            catch (Exception)
            {
                AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
                Volatile.Write(ref _isStarted, 0);
                throw;
            }
        }

        /// <summary>What a handler has thrown, on its thread.</summary>
        internal void Report(Exception error) =>
            ErrorReport.Tell(this, OnError, _logger, error, "The handler of channel {ChannelName} failed", _name);

        /// <summary>Its handler is called no more, for that reason, or for one that the native library knows.</summary>
        internal void HasEnded(Exception? error)
        {
            if (Volatile.Read(ref _isStopping) == 0)
            {
                _failure = error;
                Elsewhere.Run("zerobuffer-stop", EndServing);
            }
        }

        /// <summary>The next request; null if there was none in time.</summary>
        private protected Request? Take(TimeSpan timeout)
        {
            ThrowIfServing();
            RequestQueue? queue = Volatile.Read(ref _queue);
            return queue == null ? ReceiveNative(timeout, false) : queue.Receive(timeout);
        }

        /// <summary>From the first call on, it receives from the native server.</summary>
        private protected RequestQueue Queue()
        {
            ThrowIfServing();
            return LazyInitializer.EnsureInitialized(ref _queue, ref _hasQueue, ref _lock, () => new RequestQueue(ReceiveDetached))!;
        }

        private void ThrowIfServing()
        {
            _handle.ThrowIfEnded();
            if (Volatile.Read(ref _isStarted) == 1)
            {
                throw new InvalidStateException("the server was started, so its handler gets the requests");
            }
        }

        private Request? ReceiveDetached(TimeSpan timeout) => ReceiveNative(timeout, true);

        private Request? ReceiveNative(TimeSpan timeout, bool detached)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            if (!_handle.TryEnter())
            {
                // Another thread receives.
                var since = Stopwatch.StartNew();
                if (!_handle.Enter(timeout))
                {
                    return null;
                }
                nanoseconds = Interop.Nanoseconds(Interop.Left(timeout, since));
            }
            try
            {
                Native.Frame frame;
                int status = Native.zb_server_receive(_handle.Inside, nanoseconds, &frame);
                if (status == (int)ErrorKind.Timeout)
                {
                    return null;
                }
                if (status == (int)ErrorKind.Closed)
                {
                    throw Stopped();
                }
                _handle.ThrowIfFailed(status);
                if (detached)
                {
                    // Before a thread that stops the server can enter: it would answer what is not detached.
                    _handle.ThrowIfFailed(Native.zb_frame_detach(&frame));
                }
                return new Request(detached ? null : _handle, &frame);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>What those get who receive then.</summary>
        private Exception Stopped() =>
            _isDisposed ? (Exception)new ObjectDisposedException("DuplexServer") : new ClosedException("the server was stopped");

        /// <summary>
        /// Stops cleanly: takes nothing more, lets running handlers finish, tells the clients, lets a channel's client read its
        /// responses, and removes the names. Each of the two waits is for <see cref="ServerConfigBase.StopTimeout"/> at most.
        /// In the last tenth of the first the tokens of <c>async</c> handlers are cancelled. Called again it does nothing more.
        /// </summary>
        /// <exception cref="ZeroBufferException">What made the server stop before, if anything did.</exception>
        /// <exception cref="ObjectDisposedException">The server was disposed.</exception>
        public void Stop()
        {
            _handle.ThrowIfEnded();
            if (Handling.IsOf(this))
            {
                Elsewhere.Run("zerobuffer-stop", EndServing);
                return;
            }
            EndServing();
            _completion.Task.GetAwaiter().GetResult();
        }

        /// <summary>
        /// As <see cref="Stop"/>, and neither the caller nor a thread of the pool waits. When the token is cancelled, the
        /// task is, and the server goes on to stop.
        /// </summary>
        /// <example>
        /// <code>
        /// await using (var server = InPlaceDuplexServer.Create("image-proc", new BufferConfig(4096, 1 &lt;&lt; 20)))
        /// {
        ///     server.Start(async (frame, cancellation) => await Task.Delay(10, cancellation));
        ///     await server.StopAsync();
        ///     Console.WriteLine(server.IsRunning); // False
        /// }
        /// </code>
        /// </example>
        /// <exception cref="ZeroBufferException">Through the task: what made the server stop before, if anything did.</exception>
        /// <exception cref="OperationCanceledException">Through the task: the token was cancelled.</exception>
        /// <exception cref="ObjectDisposedException">The server was disposed.</exception>
        public Task StopAsync(CancellationToken cancellationToken = default)
        {
            _handle.ThrowIfEnded();
            Elsewhere.Run("zerobuffer-stop", EndServing);
            if (Handling.IsOf(this))
            {
                return Task.CompletedTask;
            }
            return cancellationToken.CanBeCanceled ? Elsewhere.Ended(_completion.Task, cancellationToken) : _completion.Task;
        }

        /// <summary>Stops it, unless another thread does. Returns once it has stopped.</summary>
        private void EndServing()
        {
            if (Interlocked.Exchange(ref _isStopping, 1) == 1)
            {
                Task.WaitAny(_completion.Task);
                return;
            }
            AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
            Exception? error;
            try
            {
                error = StopNative() ?? _failure;
            }
            catch (Exception failure)
            {
                // Whatever it is, those who wait for the end hear of it.
                error = failure;
            }
            if (error == null)
            {
                _completion.SetResult(true);
            }
            else
            {
                ErrorReport.Log(LogLevel.Error, _logger, error, "The server of channel {ChannelName} had to stop", _name);
                _completion.SetException(error);
                // Nobody has to ask for it.
                _ = _completion.Task.Exception;
            }
        }

        /// <summary>Why it had stopped before, if it had.</summary>
        private Exception? StopNative()
        {
            var since = Stopwatch.StartNew();
            _tasks?.Finish(_stopTimeout, _completion.Task);
            Volatile.Read(ref _queue)?.End(Stopped());
            if (!_handle.TryEnter())
            {
                // A thread that waits for requests is not to be waited for.
                _handle.ShutDown();
                _handle.Enter();
            }
            Exception? error;
            try
            {
                _handle.EndGuard();
                // Waits also for the requests of tasks.
                error = Native.zb_server_stop(_handle.Inside) == 0 ? null : _handle.Failure();
            }
            finally
            {
                _handle.Leave();
            }
            // Also for those whose client has ended, which it does not know.
            _tasks?.AwaitAll(Interop.Left(_stopTimeout, since));
            return error;
        }

        /// <summary>Stops it as <see cref="Stop"/> does, and throws nothing.</summary>
        public void Dispose()
        {
            if (Handling.IsOf(this))
            {
                Elsewhere.Run("zerobuffer-close", Close);
            }
            else
            {
                Close();
            }
        }

        /// <summary>As <see cref="Dispose"/>, and neither the caller nor a thread of the pool waits.</summary>
        public ValueTask DisposeAsync()
        {
            Task closed = Elsewhere.Run("zerobuffer-close", Close);
            return Handling.IsOf(this) ? default : new ValueTask(closed);
        }

        private void Close()
        {
            _isDisposed = true;
            if (!_handle.Visit())
            {
                return;
            }
            _lastClients = (int)Native.zb_server_clients(_handle.Inside);
            _handle.EndVisit();
            EndServing();
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
        }

        private void StopAtExit(object? sender, EventArgs arguments) => Close();
    }
}
