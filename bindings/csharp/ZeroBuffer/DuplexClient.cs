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
        private const uint ManyThreads = 1;

        private readonly ClientHandle _handle;
        private readonly string _name;
        private readonly bool _isInPlace;

        private DuplexClient(string name, ClientHandle handle)
        {
            _name = name;
            _handle = handle;
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
            return new DuplexClient(name, handle);
        }

        private static Native.ClientConfig ToNative(ClientConfig config)
        {
            BufferConfig responses = config.ResponseBuffer;
            return new Native.ClientConfig
            {
                Size = (UIntPtr)sizeof(Native.ClientConfig),
                Channel = (uint)config.Channel,
                Threads = ManyThreads,
                Wait = (uint)config.Wait,
                MaxInFlight = Interop.Positive(config.MaxInFlight, "MaxInFlight"),
                SendTimeout = Interop.NanosecondsOrDefault(config.SendTimeout),
                ResendNotStarted = config.ResendNotStarted ? 1u : 0u,
                HasOwner = config.Owner.HasValue ? 1u : 0u,
                Owner = config.Owner.GetValueOrDefault(),
                Mode = Interop.Positive(config.Mode, "Mode"),
                Liveness = (uint)config.Liveness,
                ResponseMetadataSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.MetadataSize),
                ResponsePayloadSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.PayloadSize),
            };
        }

        public string Name => _name;

        public bool IsInPlace => _isInPlace;

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

        public bool IsDesynchronised => Inspect().IsDesynchronised != 0;

        public long InFlight => Interop.Long(Inspect().InFlight);

        public long MaxRequestSize => Interop.Long(Inspect().MaxRequestSize);

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
                return new Response(&view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        public Task<Response> CallAsync(ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellation)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            if (cancellation.IsCancellationRequested)
            {
                return Task.FromCanceled<Response>(cancellation);
            }
            if (_isInPlace)
            {
                return AsyncCall.InPlace(_handle, data.Span, nanoseconds, cancellation);
            }
            _handle.ThrowIfEnded();
            byte[] copy = data.ToArray();
            return AsyncCall.OnThread(() => Call(copy, timeout), cancellation);
        }

        public ulong SendRequest(ReadOnlySpan<byte> data)
        {
            IntPtr client = _handle.Enter();
            try
            {
                ulong sequence;
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    _handle.ThrowIfFailed(Native.zb_client_send(client, bytes, (UIntPtr)data.Length, &sequence));
                }
                return sequence;
            }
            finally
            {
                _handle.Leave();
            }
        }

        public RequestBuffer AcquireRequestBuffer(long size) => AcquireRequestBuffer(size, 0, 0);

        public RequestBuffer AcquireRequestBuffer(long size, long capacity, int alignment)
        {
            UIntPtr bytes = Interop.Size(size, "size");
            UIntPtr room = Interop.Size(capacity, "capacity");
            UIntPtr multiple = Interop.Size(alignment, "alignment");
            IntPtr client = _handle.Enter();
            try
            {
                Native.Buffer buffer;
                _handle.ThrowIfFailed(Native.zb_client_acquire(client, bytes, room, multiple, &buffer));
                return new RequestBuffer(_handle, &buffer);
            }
            finally
            {
                _handle.Leave();
            }
        }

        public Response ReceiveResponse(TimeSpan timeout) => Receive(0, timeout);

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
                return new Response(&view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        public bool Cancel(ulong sequence)
        {
            IntPtr client = _handle.Enter();
            bool cancelled = Native.zb_client_cancel(client, sequence) != 0;
            _handle.Leave();
            return cancelled;
        }

        public Reconnected Reconnect(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = _handle.Enter();
            try
            {
                Native.Reconnected report;
                _handle.ThrowIfFailed(Native.zb_client_reconnect(client, nanoseconds, &report));
                return ToManaged(&report);
            }
            finally
            {
                _handle.Leave();
            }
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
                _handle.AwaitFreed();
            }
        }
    }
}
