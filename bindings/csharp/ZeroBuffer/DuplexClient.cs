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

        private readonly Door _door;
        private readonly LeasePool _views;
        private readonly LeasePool _buffers;
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
            _door = new Door(handle, config.ManyThreads, "DuplexClient");
            _views = new LeasePool(_door, false);
            _buffers = new LeasePool(_door, true);
            _calls = new AsyncCalls(this);
            _isInPlace = Inspect().IsInPlace != 0;
        }

        internal static DuplexClient Connect(string name, ClientConfig config, TimeSpan timeout)
        {
            byte[] zeroTerminated = Interop.Name(name);
            long nanoseconds = Interop.Nanoseconds(timeout);
            var handle = new ClientHandle();
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
                IntPtr client = _door.Enter();
                bool connected = Native.zb_client_is_server_connected(client) != 0;
                _door.Exit();
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
                IntPtr client = _door.Enter();
                try
                {
                    return Interop.Bytes(
                        (buffer, capacity, length) => Native.zb_client_server_metadata(client, buffer, capacity, length));
                }
                finally
                {
                    _door.Exit();
                }
            }
        }

        public Response Call(ReadOnlySpan<byte> data, TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            Lease lease = _views.Take();
            Response response = TryCall(data, nanoseconds, lease);
            return response ?? CallAgain(data, timeout, lease);
        }

        /// <summary>There was no room, and another thread may hold responses: from then on, what is left counts.</summary>
        private Response CallAgain(ReadOnlySpan<byte> data, TimeSpan timeout, Lease lease)
        {
            var wait = new RoomWait(timeout);
            while (true)
            {
                bool more = wait.Pause();
                    Response response = TryCall(data, Interop.Nanoseconds(wait.Left), lease);
                if (response != null)
                {
                    return response;
                }
                if (!more)
                {
                    throw ZeroBufferException.Last();
                }
            }
        }

        /// <summary>Null if there is no room, and somebody who holds responses could make some.</summary>
        private Response TryCall(ReadOnlySpan<byte> data, long nanoseconds, Lease lease)
        {
            IntPtr client = _door.Enter();
            try
            {
                int status;
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    status = Native.zb_client_call(client, bytes, (UIntPtr)data.Length, nanoseconds, lease.View);
                }
                if (status == 0)
                {
                    lease.HandOut();
                }
                else if (status == (int)ErrorKind.Full && _views.IsAnyOut)
                {
                    return null;
                }
                else
                {
                    throw ZeroBufferException.Last();
                }
            }
            finally
            {
                _door.Exit();
            }
            return new Response(lease);
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
            var wait = new RoomWait(_sendTimeout);
            while (!TrySend(data, note, &sequence))
            {
                if (!wait.Pause())
                {
                    throw ZeroBufferException.Last();
                }
            }
            return sequence;
        }

        /// <summary>False if there is no room, which another thread could make.</summary>
        private bool TrySend(ReadOnlySpan<byte> data, Action<ulong> note, ulong* sequence)
        {
            if (note == null)
            {
                return TrySendInside(data, null, sequence);
            }
            _calls.Connection.EnterReadLock();
            try
            {
                return TrySendInside(data, note, sequence);
            }
            finally
            {
                _calls.Connection.ExitReadLock();
            }
        }

        private bool TrySendInside(ReadOnlySpan<byte> data, Action<ulong> note, ulong* sequence)
        {
            IntPtr client = _door.Enter();
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
                _door.Exit();
            }
        }

        /// <summary>Whether there was no room, and another thread could make some. Throws any other error.</summary>
        private bool IsForAnother(int status)
        {
            if (status == (int)ErrorKind.Full && _door.Gate != null)
            {
                return true;
            }
            ZeroBufferException.ThrowIfFailed(status);
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
            Lease lease = _buffers.Take();
            var wait = new RoomWait(_sendTimeout);
            while (!TryAcquire(bytes, room, multiple, lease))
            {
                if (!wait.Pause())
                {
                    throw ZeroBufferException.Last();
                }
            }
            return new RequestBuffer(_door, lease);
        }

        private bool TryAcquire(UIntPtr size, UIntPtr capacity, UIntPtr alignment, Lease lease)
        {
            IntPtr client = _door.Enter();
            try
            {
                int status = Native.zb_client_acquire(client, size, capacity, alignment, lease.Buffer);
                if (IsForAnother(status))
                {
                    return false;
                }
                lease.HandOut();
                return true;
            }
            finally
            {
                _door.Exit();
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
            ZeroBufferException error;
            Response response = TryReceive(sequence, Interop.Nanoseconds(timeout), true, out error);
            if (response == null)
            {
                throw error;
            }
            return response;
        }

        /// <summary>Null and no error if there is no answer yet.</summary>
        internal Response Look(ulong sequence, out ZeroBufferException error)
        {
            return TryReceive(sequence, 0, false, out error);
        }

        private Response TryReceive(ulong sequence, long nanoseconds, bool explainTimeout, out ZeroBufferException error)
        {
            int status;
            Lease lease = _views.Take();
            error = null;
            IntPtr client = _door.Enter();
            try
            {
                status = Native.zb_client_receive(client, sequence, nanoseconds, lease.View);
                if (status == 0)
                {
                    lease.HandOut();
                }
                else if (explainTimeout || status != (int)ErrorKind.Timeout)
                {
                    error = ZeroBufferException.Last();
                }
            }
            finally
            {
                _door.Exit();
            }
            if (status == 0)
            {
                return new Response(lease);
            }
            _views.Put(lease);
            return null;
        }

        public bool Cancel(ulong sequence)
        {
            IntPtr client = _door.Enter();
            bool cancelled = Native.zb_client_cancel(client, sequence) != 0;
            _door.Exit();
            return cancelled;
        }

        public Reconnected Reconnect(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            _calls.Connection.EnterWriteLock();
            try
            {
                return ReconnectAlone(nanoseconds);
            }
            finally
            {
                _calls.Connection.ExitWriteLock();
            }
        }

        private Reconnected ReconnectAlone(long nanoseconds)
        {
            Native.Reconnected report;
            // With many threads a connection that works is left as it is, and numbers go on when it does not: every
            // call finds its own end.
            if (!_manyThreads)
            {
                _calls.GiveUpAll(HasReconnected);
            }
            IntPtr client = _door.Enter();
            try
            {
                _views.EndAll();
                int status = Native.zb_client_reconnect(client, nanoseconds, &report);
                ZeroBufferException.ThrowIfFailed(status);
                if (!_manyThreads)
                {
                    // Sequence numbers start again: one that came meanwhile is not to be looked for.
                    _calls.EndAll(HasReconnected);
                }
                return ToManaged(&report);
            }
            finally
            {
                _door.Exit();
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
            IntPtr client = _door.Enter();
            int status = Native.zb_client_inspect(client, &state);
            _door.Exit();
            ZeroBufferException.ThrowIfFailed(status);
            return state;
        }

        /// <summary>The connection is not to wait for responses that are held.</summary>
        private void EndAllBytes()
        {
            _buffers.EndAll();
            _views.EndAll();
        }

        public void Dispose()
        {
            _door.Close(EndAllBytes);
            _calls.EndAll(() => new ObjectDisposedException("DuplexClient"));
        }
    }
}
