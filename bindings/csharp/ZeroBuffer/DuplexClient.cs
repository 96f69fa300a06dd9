using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>A client of a service, or of a channel of either kind. Disposing it closes the channel cleanly; responses that are held stay readable.</summary>
    /// <remarks>
    /// It may be used on any number of threads at once. Timeouts are not negative, or <see cref="Timeout.InfiniteTimeSpan"/>. Calls throw
    /// <see cref="PeerDiedException"/> and <see cref="PeerClosedException"/> once the server has ended,
    /// <see cref="ProtocolViolationException"/> if it breaks the protocol, and <see cref="ObjectDisposedException"/>.
    /// Disposing it ends the waits of all other threads in it, which get that last one.
    /// Programs that run for long set <see cref="ClientConfig.Connections"/>: their client mends itself.
    /// </remarks>
    /// <example>
    /// <code>
    /// using (var client = DuplexClient.Connect("image-proc"))
    /// using (Response response = client.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
    /// {
    ///     Console.WriteLine(response.Data[0]); // where the server has left it
    /// }
    /// </code>
    /// </example>
    public sealed unsafe class DuplexClient : IDisposable
    {
        private const uint ManyThreads = 1;

        /// <summary>If the configuration has none.</summary>
        private const int DefaultInFlight = 4096;
        private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

        private readonly ClientHandle _handle;
        private readonly string _name;
        private readonly bool _mends;
        private readonly bool _isInPlace;

        private DuplexClient(string name, ClientHandle handle, bool mends, int mostInFlight)
        {
            _name = name;
            _handle = handle;
            _mends = mends;
            Native.ClientState state = Inspect();
            _isInPlace = state.IsInPlace != 0;
            handle.Held = new HeldResponses(handle, Interop.Long(state.MaxRequestSize), mostInFlight);
        }

        /// <summary>A client with the defaults, which waits up to 5 s for a server of any kind.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="Connect(string, TimeSpan, ClientConfig)"/>.</exception>
        public static DuplexClient Connect(string name) => Connect(name, Patience);

        /// <summary>
        /// A client, waiting for its server until the timeout has passed; zero tries once. <paramref name="config"/> may
        /// be null for the defaults.
        /// </summary>
        /// <exception cref="NotRunningException">There is no server.</exception>
        /// <exception cref="BadConfigException"><see cref="ClientConfig.Connections"/> is more than 1024, for one.</exception>
        /// <exception cref="BusyException">The server has another client.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        public static DuplexClient Connect(string name, TimeSpan timeout, ClientConfig? config = null)
        {
            config = config ?? new ClientConfig();
            byte[] zeroTerminated = Interop.Name(name);
            long nanoseconds = Interop.Nanoseconds(timeout);
            var handle = new ClientHandle();
            fixed (byte* text = zeroTerminated)
            fixed (byte* metadata = config.Metadata)
            fixed (byte* label = Interop.NameOrDefault(config.Label))
            fixed (byte* directory = Interop.NameOrDefault(config.Directory))
            {
                Native.ClientConfig native = ToNative(config);
                native.Metadata = metadata;
                native.MetadataLength = (UIntPtr)(config.Metadata?.Length ?? 0);
                native.Label = label;
                native.Directory = directory;
                IntPtr made;
                int status = Native.zb_client_connect(text, &native, nanoseconds, &made);
                ZeroBufferException.ThrowIfFailed(status);
                handle.Take(made);
            }
            handle.Log = config.Logger == null ? null : new ConnectionLog(config.Logger, name);
            return new DuplexClient(name, handle, config.Connections != 0, config.MaxInFlight ?? DefaultInFlight);
        }

        private static Native.ClientConfig ToNative(ClientConfig config)
        {
            BufferConfig? responses = config.ResponseBuffer;
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
                Connections = (uint)config.Connections,
                RingSize = Interop.Positive(config.RingSize, "RingSize"),
                ResponseMetadataSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.MetadataSize),
                ResponsePayloadSize = (UIntPtr)(ulong)(responses == null ? 0 : responses.LongPayloadSize),
            };
        }

        /// <summary>The channel's name.</summary>
        public string Name => _name;

        /// <summary>Whether the answer lies where the request was.</summary>
        /// <exception cref="UnsupportedException">The client mends itself: it has several connections, or none.</exception>
        public bool IsInPlace
        {
            get
            {
                RefuseIfMending();
                return _isInPlace;
            }
        }

        /// <summary>Whether the server, or one of them, is there at this moment. Asks the operating system.</summary>
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

        /// <summary>Two buffers: whether responses may not match, because a request that was cancelled has no response yet.</summary>
        public bool IsDesynchronised
        {
            get
            {
                RefuseIfMending();
                return Inspect().IsDesynchronised != 0;
            }
        }

        /// <summary>
        /// Requests sent whose answers were not released when the latest one was sent; with two buffers, whose answers have not
        /// come; of a client that mends itself, calls under way.
        /// </summary>
        public long InFlight => Interop.Long(Inspect().InFlight);

        /// <summary>The most bytes that a request can have; 0 if a client that mends itself has no connection.</summary>
        public long MaxRequestSize => Interop.Long(Inspect().MaxRequestSize);

        /// <summary>What the server has published about itself; no bytes if nothing.</summary>
        public byte[] ServerMetadata
        {
            get
            {
                IntPtr client = EnterOne();
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

        /// <summary>
        /// Sends a copy of <paramref name="data"/> and waits for the answer, both within the timeout. A request that
        /// has no response by then is cancelled.
        /// </summary>
        /// <exception cref="HandlerFailedException">The server's handler threw.</exception>
        /// <exception cref="ChannelTimeoutException">There was no answer in time.</exception>
        /// <exception cref="FullException">There was no room in time.</exception>
        /// <exception cref="TooLargeException">There never is.</exception>
        public Response Call(ReadOnlySpan<byte> data, TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = _handle.Enter();
            try
            {
                _handle.Held.MakeRoom(data.Length);
                Native.View view;
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    _handle.ThrowIfFailed(
                        Native.zb_client_call(client, bytes, (UIntPtr)data.Length, nanoseconds, &view));
                }
                return _handle.Hold(view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>
        /// As <see cref="Call"/>, but never blocks: <paramref name="data"/> is copied before this returns, and a request for
        /// which there is no room waits for its turn in the background, in order, within the timeout.
        /// </summary>
        /// <remarks>
        /// Any number may be under way. In place no thread waits, and responses, timeouts and cancellations need none of
        /// the thread pool; the continuation runs where the caller's context or the pool lets it. Over two buffers each call
        /// has a thread of its own; a client that mends itself has none for them.
        /// </remarks>
        /// <example>
        /// <code>
        /// using (Response response = await client.CallAsync(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5), cancellationToken))
        /// {
        ///     byte[] copy = response.ToArray();
        /// }
        /// </code>
        /// </example>
        /// <exception cref="UnsupportedException">Through the task: over two buffers, with a client that mends itself.</exception>
        /// <exception cref="OperationCanceledException">Through the task: it was cancelled, and in place the request with it. The server may work on it all the same.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of; through the task if that happens later.</exception>
        public Task<Response> CallAsync(ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellationToken = default)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            if (cancellationToken.IsCancellationRequested)
            {
                return Task.FromCanceled<Response>(cancellationToken);
            }
            _handle.Held.MakeRoom(data.Length);
            if (_isInPlace || _mends)
            {
                return AsyncCall.InPlace(_handle, data.Span, nanoseconds, cancellationToken);
            }
            _handle.ThrowIfEnded();
            return CallOnThread(data.ToArray(), timeout, cancellationToken);
        }

        /// <summary>Apart from those that need no thread, of which each would make an object for what is captured here.</summary>
        private Task<Response> CallOnThread(byte[] data, TimeSpan timeout, CancellationToken cancellationToken) =>
            AsyncCall.OnThread(_handle, () => Call(data, timeout), cancellationToken);

        /// <summary>Sends a copy of <paramref name="data"/>, and returns its sequence number.</summary>
        /// <example>
        /// <code>
        /// ulong first = client.SendRequest(new byte[] { 1 });
        /// ulong second = client.SendRequest(new byte[] { 2 });
        /// client.ReceiveResponseFor(second, TimeSpan.FromSeconds(5)).Dispose();
        /// client.ReceiveResponseFor(first, TimeSpan.FromSeconds(5)).Dispose();
        /// </code>
        /// </example>
        /// <exception cref="FullException">There was no room within <see cref="ClientConfig.SendTimeout"/>.</exception>
        /// <exception cref="TooLargeException">There never is.</exception>
        public ulong SendRequest(ReadOnlySpan<byte> data)
        {
            IntPtr client = EnterOne();
            try
            {
                MakeRoom(client, data.Length);
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

        /// <summary>A request of <paramref name="size"/> bytes to be filled where the server will read it.</summary>
        /// <example>
        /// <code>
        /// using (RequestBuffer buffer = client.AcquireRequestBuffer(3))
        /// {
        ///     buffer.Data.Fill(7);
        ///     ulong sequence = buffer.Commit();
        ///     client.ReceiveResponseFor(sequence, TimeSpan.FromSeconds(5)).Dispose();
        /// }
        /// </code>
        /// </example>
        /// <exception cref="ClaimOpenException">This thread has another buffer open.</exception>
        /// <exception cref="FullException">There was no room within <see cref="ClientConfig.SendTimeout"/>, or another thread's buffer stayed open.</exception>
        public RequestBuffer AcquireRequestBuffer(long size) => AcquireRequestBuffer(size, 0, 0);

        /// <summary>
        /// As <see cref="AcquireRequestBuffer(long)"/>, in place with room for an answer of
        /// <paramref name="capacity"/> bytes if that is more, at a multiple of <paramref name="alignment"/> (a power
        /// of two up to 4096; 0 for any) from a page boundary.
        /// </summary>
        /// <exception cref="BadConfigException">The alignment is not possible.</exception>
        public RequestBuffer AcquireRequestBuffer(long size, long capacity, int alignment)
        {
            UIntPtr bytes = Interop.Size(size, "size");
            UIntPtr room = Interop.Size(capacity, "capacity");
            UIntPtr multiple = Interop.Size(alignment, "alignment");
            IntPtr client = EnterOne();
            try
            {
                MakeRoom(client, Math.Max(size, capacity));
                Native.Buffer buffer;
                _handle.ThrowIfFailed(Native.zb_client_acquire(client, bytes, room, multiple, &buffer));
                return new RequestBuffer(_handle, &buffer);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>For a thread inside, which may send ahead: what it has not received yet takes room, too.</summary>
        private void MakeRoom(IntPtr client, long bytes)
        {
            if (!_handle.Held.IsEmpty)
            {
                _handle.Held.MakeRoom(bytes, Interop.Long(Inspect(client).InFlight));
            }
        }

        /// <summary>The oldest answer that is there, waiting for one until the timeout has passed, which changes nothing.</summary>
        public Response ReceiveResponse(TimeSpan timeout) => Receive(0, timeout);

        /// <summary>
        /// The answer to request <paramref name="sequence"/>, waiting for it until the timeout has passed: then the
        /// request is cancelled, unless the timeout is zero.
        /// </summary>
        /// <exception cref="UnknownSequenceException">No such request is waiting for an answer.</exception>
        public Response ReceiveResponseFor(ulong sequence, TimeSpan timeout)
        {
            if (sequence == 0)
            {
                // To the native function it would mean any.
                throw new UnknownSequenceException(sequence);
            }
            return Receive(sequence, timeout);
        }

        private Response Receive(ulong sequence, TimeSpan timeout, [CallerMemberName] string? member = null)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = EnterOne(member);
            try
            {
                Native.View view;
                _handle.ThrowIfFailed(Native.zb_client_receive(client, sequence, nanoseconds, &view));
                return _handle.Hold(view);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>
        /// Cancels a request: no response to it will be delivered. True if it was cancelled; false if its response is there
        /// already, or if no such request is waiting.
        /// </summary>
        public bool Cancel(ulong sequence)
        {
            IntPtr client = EnterOne();
            bool cancelled = Native.zb_client_cancel(client, sequence) != 0;
            _handle.Leave();
            return cancelled;
        }

        /// <summary>
        /// Attaches to the channel's present server, after the previous one has exited. A connection that works is left as it
        /// is. Sequence numbers go on. Requests that were in flight are not sent again, but reported as lost; calls under way
        /// fail, or send theirs again with <see cref="ClientConfig.ResendNotStarted"/>. Responses that are held stay.
        /// </summary>
        /// <example>
        /// <code>
        /// try
        /// {
        ///     client.Call(request, TimeSpan.FromSeconds(5)).Dispose();
        /// }
        /// catch (PeerGoneException error) when (error.Request.State == RequestState.NotStarted)
        /// {
        ///     client.Reconnect(TimeSpan.FromSeconds(10));
        ///     client.Call(request, TimeSpan.FromSeconds(5)).Dispose(); // safe to send again
        /// }
        /// </code>
        /// </example>
        /// <exception cref="InvalidStateException">A request buffer is open; dispose it first.</exception>
        public Reconnected Reconnect(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr client = EnterOne();
            try
            {
                Native.Reconnected report;
                _handle.ThrowIfFailed(Native.zb_client_reconnect(client, nanoseconds, &report));
                _handle.Log?.Works();
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
            IntPtr client = _handle.Enter();
            try
            {
                return Inspect(client);
            }
            finally
            {
                _handle.Leave();
            }
        }

        private static Native.ClientState Inspect(IntPtr client)
        {
            var state = new Native.ClientState { Size = (UIntPtr)sizeof(Native.ClientState) };
            ZeroBufferException.ThrowIfFailed(Native.zb_client_inspect(client, &state));
            return state;
        }

        /// <summary>The native client, for a member that speaks of its one connection.</summary>
        private IntPtr EnterOne([CallerMemberName] string? member = null)
        {
            RefuseIfMending(member);
            return _handle.Enter();
        }

        private void RefuseIfMending([CallerMemberName] string? member = null)
        {
            if (_mends)
            {
                throw new UnsupportedException(
                    "DuplexClient." + member + " speaks of one connection, and this client has ClientConfig.Connections; "
                    + "use Call or CallAsync");
            }
        }

        /// <summary>Closes the channel cleanly, at once. Does nothing the second time.</summary>
        public void Dispose()
        {
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
        }
    }
}
