using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>A server of a channel of any kind, for one client after the other.</summary>
    /// <remarks>
    /// A server that was started serves until it is stopped or disposed, whether or not anything refers to it; when the
    /// process exits in order it is stopped. Handlers run on threads of the native library. What a handler throws
    /// ends neither the thread nor the server. Stopping it, and disposing of it, end the wait of a thread that receives.
    /// </remarks>
    public abstract unsafe class DuplexServer : IDisposable
    {
        private protected const uint InPlace = 0;
        private protected const uint Mutable = 1;
        private protected const uint Immutable = 2;

        /// <summary>If the configuration has none.</summary>
        private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(2);

        private readonly ServerHandle _handle = new ServerHandle();
        private readonly string _name;
        private readonly ILogger _logger;

        private volatile bool _wasStarted;

        // What handlers are told while a thread waits for them to finish.
        private int _stopping;
        private volatile bool _wasConnected;

        private RequestTasks _tasks;
        private readonly TimeSpan _stopTimeout;

        private protected DuplexServer(string name, ServerConfig config, uint kind)
        {
            byte[] zeroTerminated = Interop.Name(name);
            if (config == null)
            {
                throw new ArgumentNullException("config");
            }
            _name = name;
            _logger = config.Logger ?? NullLogger.Instance;
            _stopTimeout = config.StopTimeout ?? StopTimeout;
            fixed (byte* text = zeroTerminated)
            fixed (byte* metadata = config.Metadata)
            {
                var native = new Native.ServerConfig
                {
                    Size = (UIntPtr)sizeof(Native.ServerConfig),
                    Kind = kind,
                    Mode = Interop.Positive(config.Mode, "Mode"),
                    MetadataSize = (UIntPtr)(ulong)config.Buffer.MetadataSize,
                    PayloadSize = (UIntPtr)(ulong)config.Buffer.LongPayloadSize,
                    Wait = (uint)config.Wait,
                    Workers = Interop.Positive(config.Workers, "Workers"),
                    Metadata = metadata,
                    MetadataLength = (UIntPtr)(metadata == null ? 0 : config.Metadata.Length),
                    StopTimeout = Interop.NanosecondsOrDefault(config.StopTimeout),
                    Liveness = (uint)config.Liveness,
                };
                IntPtr made;
                ZeroBufferException.ThrowIfFailed(Native.zb_server_create(text, &native, &made));
                _handle.Take(made);
            }
        }

        /// <summary>
        /// What a handler has thrown. It is raised on the handler's thread, after which the server goes on; what is thrown
        /// here is logged.
        /// </summary>
        public event EventHandler<ErrorEventArgs> OnError;

        /// <summary>The channel's name.</summary>
        public string Name => _name;

        /// <summary>
        /// Whether threads are serving: false before <c>Start</c>, after <see cref="Stop"/>, and if the server had to stop
        /// for a reason of its own.
        /// </summary>
        public bool IsRunning
        {
            get
            {
                if (_tasks != null)
                {
                    _handle.ThrowIfFreed();
                    return _tasks.IsServing;
                }
                // Without a handler another thread may be waiting inside for a request.
                if (!_wasStarted || !EnterUnlessStopping())
                {
                    _handle.ThrowIfFreed();
                    return false;
                }
                bool running = Native.zb_server_is_running(_handle.Inside) != 0;
                _handle.Leave();
                return running;
            }
        }

        private bool EnterUnlessStopping()
        {
            var spin = new SpinWait();
            while (!_handle.TryEnter())
            {
                if (Volatile.Read(ref _stopping) > 0)
                {
                    return false;
                }
                _handle.ThrowIfEnded();
                spin.SpinOnce();
            }
            return true;
        }

        /// <summary>Whether a client is attached at this moment.</summary>
        public bool IsClientConnected
        {
            get
            {
                if (!_handle.Visit())
                {
                    _handle.ThrowIfFreed();
                    return _wasConnected;
                }
                bool connected = Native.zb_server_is_client_connected(_handle.Inside) != 0;
                _handle.EndVisit();
                return connected;
            }
        }

        private protected void Serve(Action<Frame> handler)
        {
            ThrowIfServing();
            IntPtr server = _handle.Enter();
            try
            {
                HandlerThunk.Start(server, handler, Report);
                _wasStarted = true;
                // Until it is stopped, somebody refers to it.
                AppDomain.CurrentDomain.ProcessExit += StopAtExit;
            }
            finally
            {
                _handle.Leave();
            }
        }

        private protected void Serve(Func<Frame, CancellationToken, Task> handler)
        {
            ThrowIfServing();
            // A server that cannot receive says so here.
            Request first = TryReceive(TimeSpan.Zero);
            _tasks = new RequestTasks(TryReceive, handler, Report, first);
            AppDomain.CurrentDomain.ProcessExit += StopAtExit;
        }

        /// <summary>What a handler has thrown, on its thread.</summary>
        private void Report(Exception error) =>
            ErrorReport.Tell(this, OnError, _logger, error, "The handler of channel {ChannelName} failed", _name);

        private void ThrowIfServing()
        {
            _handle.ThrowIfEnded();
            if (_wasStarted || _tasks != null)
            {
                throw new InvalidStateException("the server was started before");
            }
        }

        /// <summary>For tasks that serve: takes nothing more, and lets them finish.</summary>
        private void EndTasks()
        {
            if (_tasks != null)
            {
                _handle.ShutDown();
                _tasks.Stop(_stopTimeout);
            }
        }

        private protected Request Take(TimeSpan timeout)
        {
            if (_tasks != null)
            {
                throw new InvalidStateException("the server was started, so its handler gets the requests");
            }
            return TryReceive(timeout) ?? throw ZeroBufferException.Last();
        }

        /// <summary>Null if there was none.</summary>
        private Request TryReceive(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr server = _handle.Enter();
            try
            {
                Native.Frame frame;
                int status = Native.zb_server_receive(server, nanoseconds, &frame);
                if (status == (int)ErrorKind.Timeout)
                {
                    return null;
                }
                _handle.ThrowIfFailed(status);
                return new Request(_handle, &frame);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>
        /// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets it read its responses,
        /// and removes the channel's names. Called again it does nothing.
        /// </summary>
        /// <exception cref="ZeroBufferException">What made the server stop before, if anything did.</exception>
        public void Stop()
        {
            EndTasks();
            if (!_handle.TryEnter())
            {
                // A thread that waits for requests is not to be waited for.
                _handle.ShutDown();
                _handle.Enter();
            }
            IntPtr server = _handle.Inside;
            Interlocked.Increment(ref _stopping);
            try
            {
                AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
                _handle.EndGuard();
                _handle.ThrowIfFailed(Native.zb_server_stop(server));
            }
            finally
            {
                Interlocked.Decrement(ref _stopping);
                _handle.Leave();
            }
        }

        /// <summary>Stops it as <see cref="Stop"/> does, and throws nothing.</summary>
        public void Dispose()
        {
            AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
            Close();
        }

        private void Close()
        {
            EndTasks();
            if (!_handle.Visit())
            {
                return;
            }
            _wasConnected = Native.zb_server_is_client_connected(_handle.Inside) != 0;
            Interlocked.Increment(ref _stopping);
            _handle.EndVisit();
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
            Interlocked.Decrement(ref _stopping);
        }

        private void StopAtExit(object sender, EventArgs arguments) => Close();
    }
}
