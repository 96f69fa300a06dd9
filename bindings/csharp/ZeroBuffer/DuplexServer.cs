using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>The server of each kind of channel.</summary>
    internal sealed unsafe class DuplexServer : IInPlaceDuplexServer, IMutableDuplexServer, IImmutableDuplexServer
    {
        internal const uint InPlace = 0;
        internal const uint Mutable = 1;
        internal const uint Immutable = 2;

        private readonly Door _door;
        private readonly string _name;

        /// <summary>Where the native library puts what is received.</summary>
        private readonly Native.Frame* _received;
        private Request _request;

        // What handlers are told while the server waits for them to finish, with its door shut.
        private volatile bool _isStopping;
        private volatile bool _wasConnected;

        private DuplexServer(string name, ServerHandle handle)
        {
            _name = name;
            _door = new Door(handle, false, "DuplexServer");
            _received = (Native.Frame*)Marshal.AllocHGlobal(sizeof(Native.Frame));
            *_received = default(Native.Frame);
        }

        ~DuplexServer()
        {
            // Before the handle closes itself, whose finalizer is one of those that come last.
            Native.zb_frame_abandon(_received);
            Marshal.FreeHGlobal((IntPtr)_received);
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
            return new DuplexServer(name, handle);
        }

        internal Door Door
        {
            get { return _door; }
        }

        public string Name
        {
            get { return _name; }
        }

        public bool IsRunning
        {
            get
            {
                if (!EnterUnlessStopping())
                {
                    return false;
                }
                bool running = Native.zb_server_is_running(_door.Inside) != 0;
                _door.Exit();
                return running;
            }
        }

        public bool IsClientConnected
        {
            get
            {
                if (!EnterUnlessStopping())
                {
                    return _wasConnected;
                }
                bool connected = Native.zb_server_is_client_connected(_door.Inside) != 0;
                _door.Exit();
                return connected;
            }
        }

        private bool EnterUnlessStopping()
        {
            var spin = new SpinWait();
            while (!_door.TryEnter())
            {
                if (_isStopping)
                {
                    return false;
                }
                spin.SpinOnce();
            }
            return true;
        }

        public void Start(Action<Frame> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException("handler");
            }
            IntPtr server = _door.Enter();
            try
            {
                HandlerThunk.Start(server, handler);
                // Until it is stopped, somebody refers to it.
                AppDomain.CurrentDomain.ProcessExit += StopAtExit;
            }
            finally
            {
                _door.Exit();
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

        public Request Receive(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr server = _door.Enter();
            try
            {
                Native.Frame frame;
                ZeroBufferException.ThrowIfFailed(Native.zb_server_receive(server, nanoseconds, &frame));
                *_received = frame;
                _request = new Request(_received, this);
                return _request;
            }
            finally
            {
                _door.Exit();
            }
        }

        public void Stop()
        {
            IntPtr server = _door.Enter();
            try
            {
                BeginStop();
                AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
                ZeroBufferException.ThrowIfFailed(Native.zb_server_stop(server));
            }
            finally
            {
                _isStopping = false;
                _door.Exit();
            }
        }

        public void Dispose()
        {
            AppDomain.CurrentDomain.ProcessExit -= StopAtExit;
            _door.Close(BeginStop);
        }

        /// <summary>To be called inside.</summary>
        private void BeginStop()
        {
            _wasConnected = Native.zb_server_is_client_connected(_door.Inside) != 0;
            _isStopping = true;
            EndRequest();
        }

        /// <summary>What was received and is still in the server fails at its client now.</summary>
        private void EndRequest()
        {
            Native.zb_frame_abandon(_received);
            if (_request != null)
            {
                _request.End(_received);
            }
            _request = null;
        }

        private void StopAtExit(object sender, EventArgs arguments)
        {
            _door.Close(BeginStop);
        }
    }

    /// <summary>A handler as the native library calls it.</summary>
    internal sealed unsafe class HandlerThunk
    {
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

        internal static void Start(IntPtr server, Action<Frame> handler)
        {
            var thunk = new HandlerThunk(handler);
            // Alive until the native library says that nobody calls it any more.
            IntPtr user = GCHandle.ToIntPtr(GCHandle.Alloc(thunk));
            IntPtr callback = Marshal.GetFunctionPointerForDelegate(thunk._callback);
            ZeroBufferException.ThrowIfFailed(Native.zb_server_start(server, callback, user, ReleasedPointer));
        }

        private static void Release(IntPtr user)
        {
            GCHandle.FromIntPtr(user).Free();
        }

        /// <summary>Throws nothing: an exception must not leave managed code.</summary>
        private int Run(Native.Frame* native, IntPtr user)
        {
            var frame = new Frame(native);
            try
            {
                _handler(frame);
                return 0;
            }
            catch (Exception error)
            {
                return Explain(native, error);
            }
            finally
            {
                frame.Move(null);
            }
        }

        private static int Explain(Native.Frame* native, Exception error)
        {
            try
            {
                Frame.Fail(native, error.Message);
            }
            catch (Exception)
            {
                // Then the client gets the native library's own words for what is returned.
            }
            return 1;
        }
    }
}
