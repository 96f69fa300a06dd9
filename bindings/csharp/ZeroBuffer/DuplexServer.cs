using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>The server of each kind of channel.</summary>
    internal sealed unsafe class DuplexServer : IInPlaceDuplexServer, IMutableDuplexServer, IImmutableDuplexServer
    {
        internal const uint InPlace = 0;
        internal const uint Mutable = 1;
        internal const uint Immutable = 2;

        /// <summary>If the configuration has none.</summary>
        private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(2);

        private readonly ServerHandle _handle;
        private readonly string _name;

        private volatile bool _wasStarted;

        // What handlers are told while a thread waits for them to finish.
        private int _stopping;
        private volatile bool _wasConnected;

        private RequestTasks _tasks;
        private readonly TimeSpan _stopTimeout;

        private DuplexServer(string name, ServerHandle handle, TimeSpan? stopTimeout)
        {
            _name = name;
            _handle = handle;
            _stopTimeout = stopTimeout ?? StopTimeout;
        }

        internal static DuplexServer Create(string name, ServerConfig config, uint kind)
        {
            byte[] zeroTerminated = Interop.Name(name);
            if (config == null)
            {
                throw new ArgumentNullException("config");
            }
            var handle = new ServerHandle();
            fixed (byte* text = zeroTerminated)
            fixed (byte* metadata = config.Metadata)
            {
                var native = new Native.ServerConfig
                {
                    Size = (UIntPtr)sizeof(Native.ServerConfig),
                    Kind = kind,
                    Mode = Interop.Positive(config.Mode, "Mode"),
                    MetadataSize = (UIntPtr)(ulong)config.Buffer.MetadataSize,
                    PayloadSize = (UIntPtr)(ulong)config.Buffer.PayloadSize,
                    Wait = (uint)config.Wait,
                    Workers = Interop.Positive(config.Workers, "Workers"),
                    Metadata = metadata,
                    MetadataLength = (UIntPtr)(metadata == null ? 0 : config.Metadata.Length),
                    StopTimeout = Interop.NanosecondsOrDefault(config.StopTimeout),
                    Liveness = (uint)config.Liveness,
                };
                IntPtr made;
                int status = Native.zb_server_create(text, &native, &made);
                ZeroBufferException.ThrowIfFailed(status);
                handle.Take(made);
            }
            return new DuplexServer(name, handle, config.StopTimeout);
        }

        public string Name => _name;

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

        public void Start(Action<Frame> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException("handler");
            }
            HandlerThunk.RefuseAsync(handler);
            ThrowIfServing();
            IntPtr server = _handle.Enter();
            try
            {
                HandlerThunk.Start(server, handler);
                _wasStarted = true;
                // Until it is stopped, somebody refers to it.
                AppDomain.CurrentDomain.ProcessExit += StopAtExit;
            }
            finally
            {
                _handle.Leave();
            }
        }

        public void Start(Func<Frame, CancellationToken, Task> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException("handler");
            }
            ThrowIfServing();
            // A server that cannot receive says so here.
            Request first = TryReceive(TimeSpan.Zero);
            _tasks = new RequestTasks(TryReceive, handler, first);
            AppDomain.CurrentDomain.ProcessExit += StopAtExit;
        }

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

        public void Start(Func<Frame, byte[]> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException("handler");
            }
            Start(delegate(Frame frame)
            {
                byte[] answer = handler(frame);
                if (answer == null)
                {
                    throw new InvalidOperationException("the handler returned null");
                }
                answer.CopyTo(frame.Reply(answer.Length));
            });
        }

        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        public void Start<T>(Func<Frame, T> handler) => throw new ArgumentException(HandlerThunk.ReturnsNothing, "handler");

        public Request Receive(TimeSpan timeout)
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

    /// <summary>A handler as the native library calls it.</summary>
    internal sealed unsafe class HandlerThunk
    {
        internal const string ReturnsNothing =
            "a handler edits the frame and returns nothing; one that is async would not have finished when it returns";
        internal const string ReturnsBytes =
            "a handler returns a byte[], or nothing and calls Reply; one that is async would not have finished when it returns";

        /// <summary>For as long as the program runs, since it may be called on the way out.</summary>
        private static readonly Native.Release Released = Release;
        private static readonly IntPtr ReleasedPointer = Marshal.GetFunctionPointerForDelegate(Released);

        private readonly Action<Frame> _handler;
        private readonly Native.Handler _callback;

        private HandlerThunk(Action<Frame> handler)
        {
            _handler = handler;
            _callback = Run;
        }

        /// <summary>Of a method that is async and returns nothing the compiler lets nobody know.</summary>
        internal static void RefuseAsync(Delegate handler)
        {
            foreach (Delegate one in handler.GetInvocationList())
            {
                if (one.Method.IsDefined(typeof(AsyncStateMachineAttribute), false))
                {
                    throw new ArgumentException(ReturnsNothing, "handler");
                }
            }
        }

        internal static void Start(IntPtr server, Action<Frame> handler)
        {
            var thunk = new HandlerThunk(handler);
            // Alive until the native library says that nobody calls it any more.
            IntPtr user = GCHandle.ToIntPtr(GCHandle.Alloc(thunk));
            IntPtr callback = Marshal.GetFunctionPointerForDelegate(thunk._callback);
            ZeroBufferException.ThrowIfFailed(Native.zb_server_start(server, callback, user, ReleasedPointer));
        }

        private static void Release(IntPtr user) => GCHandle.FromIntPtr(user).Free();

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private int Run(Native.Frame* native, IntPtr user)
        {
            var frame = new HandlerFrame(native);
            Exception error = null;
            try
            {
                _handler(frame);
            }
            catch (Exception failure)
            {
                error = failure;
            }
            frame.End();
            return error == null ? 0 : Explain(native, error);
        }

        private static int Explain(Native.Frame* native, Exception error)
        {
            try
            {
                Interop.Fail(native, error.Message);
            }
            catch (Exception)
            {
                // Then the client gets the native library's own words for what is returned.
            }
            return 1;
        }
    }
}
