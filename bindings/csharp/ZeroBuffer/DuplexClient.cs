using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>The client of both kinds of channel.</summary>
    internal sealed unsafe class DuplexClient : IDuplexClient
    {
        /// <summary>If the configuration has none.</summary>
        private static readonly TimeSpan SendTimeout = TimeSpan.FromSeconds(5);

        private readonly ClientHandle _handle;
        private readonly AsyncCalls _calls;
        private readonly string _name;
        private readonly bool _isInPlace;
        private readonly bool _resendsOnAnyThread;
        private readonly bool _manyThreads;
        private readonly TimeSpan _sendTimeout;

        private DuplexClient(string name, ClientHandle handle, ClientConfig config)
        {
            _name = name;
            _sendTimeout = config.SendTimeout ?? SendTimeout;
            _resendsOnAnyThread = config.ManyThreads && config.ResendNotStarted;
            _manyThreads = config.ManyThreads;
            _handle = handle;
            _calls = new AsyncCalls(this);
            _isInPlace = Inspect().IsInPlace != 0;
        }

        internal static DuplexClient Connect(string name, ClientConfig config, TimeSpan timeout)
        {
            byte[] zeroTerminated = Interop.Name(name);
            long nanoseconds = Interop.Nanoseconds(timeout);
            var handle = new ClientHandle(config.ManyThreads);
            fixed (byte* text = zeroTerminated)
            fixed (byte* metadata = config.Metadata)
            {
                Native.ClientConfig native = ToNative(config);
                native.Metadata = metadata;
                native.MetadataLength = (UIntPtr)(metadata == null ? 0 : config.Metadata.Length);
                IntPtr made;
                int status = Native.zb_client_connect(text, &native, nanoseconds, &made);
                ZeroBufferException.ThrowIfFailed(status);
                handle.Take(made);
            }
            return new DuplexClient(name, handle, config);
        }

        private static Native.ClientConfig ToNative(ClientConfig config)
        {
            BufferConfig responses = config.ResponseBuffer;
            return new Native.ClientConfig
            {
                Size = (UIntPtr)sizeof(Native.ClientConfig),
                Channel = (uint)config.Channel,
                Threads = config.ManyThreads ? 1u : 0u,
                Wait = (uint)config.Wait,
                MaxInFlight = Interop.Positive(config.MaxInFlight, "MaxInFlight"),
                // Where one thread at a time is inside, another one that would make room must not be kept out.
                SendTimeout = config.ManyThreads ? Interop.NanosecondsOrDefault(config.SendTimeout) : 1,
                ResendNotStarted = config.ResendNotStarted ? 1u : 0u,
                HasOwner = config.Owner.HasValue ? 1u : 0u,
                Owner = config.Owner.GetValueOrDefault(),
                Mode = Interop.Positive(config.Mode, "Mode"),
                Liveness = (uint)config.Liveness,
                ResponseMetadataSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.MetadataSize),
                ResponsePayloadSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.PayloadSize),
            };
        }

        public string Name
        {
            get { return _name; }
        }

        public bool IsInPlace
        {
            get { return _isInPlace; }
        }

        public bool IsServerConnected
        {
            get
            {
                IntPtr client = _handle.Enter();
                bool connected = Native.zb_client_is_server_connected(client) != 0;
                _handle.Leave();
                return connected;
            }
        }

        public bool IsDesynchronised
        {
            get { return Inspect().IsDesynchronised != 0; }
        }

        public long InFlight
        {
            get { return Interop.Long(Inspect().InFlight); }
        }

        public long MaxRequestSize
        {
            get { return Interop.Long(Inspect().MaxRequestSize); }
        }

        public byte[] ServerMetadata
        {
            get
            {
                IntPtr client = _handle.Enter();
                try
                {
                    return Interop.Bytes(
                        (buffer, capacity, length) => Native.zb_client_server_metadata(client, buffer, capacity, length));
                }
                finally
                {
                    _handle.Leave();
                }
            }
        }

        public Response Call(ReadOnlySpan<byte> data, TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = _handle.Enter();
            try
            {
                Native.View view;
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    _handle.ThrowIfFailed(
                        Native.zb_client_call(client, bytes, (UIntPtr)data.Length, nanoseconds, &view));
                }
                return HandOut(&view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>A response that any thread can release, whatever this client is doing.</summary>
        private Response HandOut(Native.View* view)
        {
            if (!_manyThreads)
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_view_detach(view));
            }
            return new Response(view);
        }

        public Task<Response> CallAsync(ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellation)
        {
            Interop.Nanoseconds(timeout);
            if (cancellation.IsCancellationRequested)
            {
                return Task.FromCanceled<Response>(cancellation);
            }
            if (_resendsOnAnyThread)
            {
                return Task.FromException<Response>(new UnsupportedException(
                    "CallAsync with both ManyThreads and ResendNotStarted, where any call may reconnect; set one of them"));
            }
            Task<Response> call = null;
            try
            {
                Send(data.Span, sequence => call = _calls.Add(sequence, timeout, cancellation));
                return call;
            }
            catch (ZeroBufferException error)
            {
                return Task.FromException<Response>(error);
            }
        }

        public ulong SendRequest(ReadOnlySpan<byte> data)
        {
            return Send(data, null);
        }

        /// <summary><paramref name="note"/> is told the number before the connection can be replaced.</summary>
        private ulong Send(ReadOnlySpan<byte> data, Action<ulong> note)
        {
            ulong sequence;
            var retry = new FullRetry(_sendTimeout);
            while (!TrySend(data, note, &sequence))
            {
                if (!retry.Pause())
                {
                    throw ZeroBufferException.Last();
                }
            }
            return sequence;
        }

        /// <summary>False if there is no room, which another thread could make.</summary>
        private bool TrySend(ReadOnlySpan<byte> data, Action<ulong> note, ulong* sequence)
        {
            IntPtr client = _handle.Enter();
            try
            {
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    int status = Native.zb_client_send(client, bytes, (UIntPtr)data.Length, sequence);
                    if (IsForAnother(status))
                    {
                        return false;
                    }
                }
                if (note != null)
                {
                    note(*sequence);
                }
                return true;
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Whether there was no room, and another thread could make some. Throws any other error.</summary>
        private bool IsForAnother(int status)
        {
            if (status == (int)ErrorKind.Full && !_manyThreads)
            {
                return true;
            }
            _handle.ThrowIfFailed(status);
            return false;
        }

        public RequestBuffer AcquireRequestBuffer(long size)
        {
            return AcquireRequestBuffer(size, 0, 0);
        }

        public RequestBuffer AcquireRequestBuffer(long size, long capacity, int alignment)
        {
            UIntPtr bytes = Interop.Size(size, "size");
            UIntPtr room = Interop.Size(capacity, "capacity");
            UIntPtr multiple = Interop.Size(alignment, "alignment");
            var retry = new FullRetry(_sendTimeout);
            RequestBuffer buffer;
            while ((buffer = TryAcquire(bytes, room, multiple)) == null)
            {
                if (!retry.Pause())
                {
                    throw ZeroBufferException.Last();
                }
            }
            return buffer;
        }

        /// <summary>Null if there is no room, which another thread could make.</summary>
        private RequestBuffer TryAcquire(UIntPtr size, UIntPtr capacity, UIntPtr alignment)
        {
            IntPtr client = _handle.Enter();
            try
            {
                Native.Buffer buffer;
                int status = Native.zb_client_acquire(client, size, capacity, alignment, &buffer);
                return IsForAnother(status) ? null : new RequestBuffer(_handle, &buffer);
            }
            finally
            {
                _handle.Leave();
            }
        }

        public Response ReceiveResponse(TimeSpan timeout)
        {
            return Receive(0, timeout);
        }

        public Response ReceiveResponseFor(ulong sequence, TimeSpan timeout)
        {
            if (sequence == 0)
            {
                // To the native function it would mean any.
                throw new UnknownSequenceException(sequence);
            }
            return Receive(sequence, timeout);
        }

        private Response Receive(ulong sequence, TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = _handle.Enter();
            try
            {
                Native.View view;
                _handle.ThrowIfFailed(Native.zb_client_receive(client, sequence, nanoseconds, &view));
                return HandOut(&view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        public bool Cancel(ulong sequence)
        {
            _handle.Enter();
            bool cancelled = CancelInside(sequence);
            _handle.Leave();
            return cancelled;
        }

        // What the looking for answers needs, on a thread that has entered.

        internal ClientHandle Handle
        {
            get { return _handle; }
        }

        /// <summary>Null and no error if there is no answer yet.</summary>
        internal Response LookInside(ulong sequence, out Exception error)
        {
            Native.View view;
            int status = Native.zb_client_receive(_handle.Inside, sequence, 0, &view);
            error = status == 0 || status == (int)ErrorKind.Timeout ? null : _handle.Failure();
            return status == 0 ? HandOut(&view) : null;
        }

        internal bool CancelInside(ulong sequence)
        {
            return Native.zb_client_cancel(_handle.Inside, sequence) != 0;
        }

        public Reconnected Reconnect(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = _handle.Enter();
            try
            {
                // With many threads a connection that works is left as it is, and numbers go on when it does not: every
                // call finds its own end. Otherwise numbers start again, and one of before is not to be looked for.
                if (!_manyThreads)
                {
                    _calls.GiveUpAllInside(HasReconnected);
                }
                Native.Reconnected report;
                _handle.ThrowIfFailed(Native.zb_client_reconnect(client, nanoseconds, &report));
                return ToManaged(&report);
            }
            finally
            {
                _handle.Leave();
            }
        }

        private static Exception HasReconnected()
        {
            return new InvalidStateException("the client has reconnected before the answer came: call again");
        }

        private static Reconnected ToManaged(Native.Reconnected* report)
        {
            var resent = new KeyValuePair<ulong, ulong>[Interop.Long(report->ResentCount)];
            for (int index = 0; index < resent.Length; index++)
            {
                Native.Resent* one = report->Resent + index;
                resent[index] = new KeyValuePair<ulong, ulong>(one->Former, one->Sequence);
            }
            var lost = new LostRequest[Interop.Long(report->LostCount)];
            for (int index = 0; index < lost.Length; index++)
            {
                Native.Lost* one = report->Lost + index;
                lost[index] = new LostRequest(one->Sequence, one->State);
            }
            return new Reconnected(resent, lost);
        }

        private Native.ClientState Inspect()
        {
            var state = new Native.ClientState { Size = (UIntPtr)sizeof(Native.ClientState) };
            IntPtr client = _handle.Enter();
            int status = Native.zb_client_inspect(client, &state);
            _handle.Leave();
            ZeroBufferException.ThrowIfFailed(status);
            return state;
        }

        public void Dispose()
        {
            if (_handle.End())
            {
                _calls.EndAll(() => new ObjectDisposedException("DuplexClient"));
                _handle.AwaitFreed();
            }
        }
    }
}
