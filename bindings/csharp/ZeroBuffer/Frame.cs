using System;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// Bytes in shared memory: a request in a server's hands, to be edited where it lies, or what a
    /// <see cref="Reader"/> has read. What a request's bytes are when the handler returns is the response.
    /// </summary>
    /// <remarks>
    /// It may be used on any thread. In a handler it is valid until the handler returns, otherwise until it is disposed of; a
    /// span that was taken from it must not be used after that.
    /// </remarks>
    public abstract unsafe class Frame : IDisposable
    {
        private readonly byte* _data;
        private readonly long _capacity;
        private long _length;

        private protected Frame(byte* data, UIntPtr length, UIntPtr capacity, ulong sequence)
        {
            _data = data;
            _capacity = Interop.Long(capacity);
            _length = Interop.Long(length);
            Sequence = sequence;
        }

        private protected Frame(Native.Frame* frame) : this(frame->Data, frame->Length, frame->Capacity, frame->Sequence) { }

        /// <summary>What a wait that was in vain returns: no bytes, and <see cref="IsValid"/> is false.</summary>
        public static Frame Invalid { get; } = new InvalidFrame();

        /// <summary>Whether there are bytes. False for what a wait returns that was in vain.</summary>
        public bool IsValid => _data != null && _length > 0;

        /// <summary>How many bytes there are. It may be asked after the end, too.</summary>
        /// <exception cref="OverflowException">There are more than 2 GiB; see <see cref="Length"/>.</exception>
        public int Size => checked((int)_length);

        /// <summary>The bytes, to be read.</summary>
        /// <exception cref="ObjectDisposedException">It was answered or disposed of.</exception>
        public ReadOnlySpan<byte> Span => Data;

        /// <summary>The address of the first byte; null if there are none.</summary>
        /// <exception cref="ObjectDisposedException">It was answered or disposed of.</exception>
        public byte* Pointer => (byte*)Address;

        /// <summary>The same as <see cref="Data"/>.</summary>
        /// <exception cref="ObjectDisposedException">It was answered or disposed of.</exception>
        public Span<byte> GetMutableSpan() => Data;

        /// <summary>A copy of the bytes. What ends meanwhile on another thread stays until the copy is made.</summary>
        /// <exception cref="ObjectDisposedException">It was answered or disposed of.</exception>
        public byte[] ToArray()
        {
            EnterBytes();
            try
            {
                return new ReadOnlySpan<byte>(_data, checked((int)_length)).ToArray();
            }
            finally
            {
                LeaveBytes();
            }
        }

        /// <summary>Releases what was read. A frame in a handler ends when the handler returns, and this does nothing.</summary>
        public abstract void Dispose();

        /// <summary>The bytes. In the handler of an immutable server they are to be read only.</summary>
        /// <exception cref="ObjectDisposedException">It was answered or disposed of.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public Span<byte> Data
        {
            get
            {
                ThrowIfEnded();
                return new Span<byte>(_data, checked((int)_length));
            }
        }

        /// <summary>The request's number, as its client counts; its answer carries the same one.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>How many bytes there are: as in the request, until it is changed for the answer.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public long Length
        {
            get
            {
                ThrowIfEnded();
                return _length;
            }
        }

        /// <summary>The most bytes that the answer can have.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public long Capacity
        {
            get
            {
                ThrowIfEnded();
                return _capacity;
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public IntPtr Address
        {
            get
            {
                ThrowIfEnded();
                return (IntPtr)_data;
            }
        }

        /// <summary>What the client that sent it has published about itself; no bytes if nothing.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public byte[] Metadata
        {
            get
            {
                Native.Frame* frame = Enter();
                try
                {
                    byte* data;
                    UIntPtr length;
                    ZeroBufferException.ThrowIfFailed(Native.zb_frame_metadata(frame, &data, &length));
                    return Interop.ReadOnlySpan(data, length).ToArray();
                }
                finally
                {
                    Leave();
                }
            }
        }

        /// <summary>Who has sent it, to a <see cref="Service"/>; null on a channel, which has one client.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public ClientIdentity? Client
        {
            get
            {
                Native.Frame* frame = Enter();
                try
                {
                    var client = new Native.ClientIdentity { Size = (UIntPtr)sizeof(Native.ClientIdentity) };
                    ZeroBufferException.ThrowIfFailed(Native.zb_frame_client(frame, &client));
                    return client.Number == 0 ? null : new ClientIdentity(client, Interop.Text(client.Label, client.LabelLength));
                }
                finally
                {
                    Leave();
                }
            }
        }

        /// <summary>
        /// Whether nobody waits for the response any more: the client has cancelled the request, closed or died; with two
        /// buffers, whether the client has closed or died. A server that is being stopped still delivers what a handler
        /// makes in time. To be asked between two pieces of long work, since it costs a system call.
        /// </summary>
        /// <example>
        /// <code>
        /// server.Start(frame =>
        /// {
        ///     for (int part = 0; part &lt; 100 &amp;&amp; !frame.IsCancelled; part++)
        ///     {
        ///         WorkOn(part, frame.Data);
        ///     }
        /// });
        /// </code>
        /// </example>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public bool IsCancelled
        {
            get
            {
                Native.Frame* frame = Enter();
                bool cancelled = Native.zb_frame_is_cancelled(frame) != 0;
                Leave();
                return cancelled;
            }
        }

        /// <summary>In place: changes the length of the answer; bytes that are added are zero.</summary>
        /// <example>
        /// <code>
        /// frame.Resize(2);
        /// frame.Data.Fill(0);
        /// </code>
        /// </example>
        /// <exception cref="TooLargeException">Beyond <see cref="Capacity"/>; nothing is changed.</exception>
        /// <exception cref="UnsupportedException">With two buffers.</exception>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public void Resize(long length)
        {
            UIntPtr size = Interop.Size(length, "length");
            Native.Frame* frame = Enter();
            try
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_frame_resize(frame, size));
                _length = length;
            }
            finally
            {
                Leave();
            }
        }

        /// <summary>In the handler of an immutable server: the answer, of that length, to be filled. Exactly once.</summary>
        /// <exception cref="InvalidStateException">It was called before, or the server is of another kind.</exception>
        /// <exception cref="TooLargeException">The client's buffer cannot take it.</exception>
        /// <exception cref="ZeroBufferException">The client has ended, or the server is being stopped.</exception>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public Span<byte> Reply(int length)
        {
            UIntPtr size = Interop.Size(length, "length");
            Native.Frame* frame = Enter();
            try
            {
                byte* data;
                ZeroBufferException.ThrowIfFailed(Native.zb_frame_reply(frame, size, &data));
                return Interop.Span(data, size);
            }
            finally
            {
                Leave();
            }
        }

        /// <summary>The native frame, which one thread at a time may use, until <see cref="Leave"/>.</summary>
        internal abstract Native.Frame* Enter();

        internal abstract void Leave();

        internal abstract void ThrowIfEnded();

        /// <summary>Keeps the bytes there until <see cref="LeaveBytes"/>.</summary>
        private protected virtual void EnterBytes() => Enter();

        private protected virtual void LeaveBytes() => Leave();
    }

    /// <summary>What was read: it has bytes and a number, and nothing else of a request.</summary>
    internal abstract unsafe class ReadFrame : Frame
    {
        private protected ReadFrame(byte* data, UIntPtr length, ulong sequence) : base(data, length, length, sequence) { }

        internal sealed override Native.Frame* Enter() =>
            throw new UnsupportedException("a frame that was read is no request that can be answered");

        internal sealed override void Leave() { }
    }

    /// <summary>A frame of a <see cref="Reader"/>, which it may outlive.</summary>
    internal sealed unsafe class ViewFrame : ReadFrame
    {
        private readonly ViewHandle _handle = new ViewHandle(null);
        private readonly long _holder;

        internal ViewFrame(in Native.View view) : base(view.Data, view.Length, view.Sequence)
        {
            _holder = _handle.Take(view);
        }

        public override void Dispose() => _handle.End(_holder);

        internal override void ThrowIfEnded()
        {
            if (!_handle.IsHeldBy(_holder))
            {
                throw new ObjectDisposedException("Frame");
            }
        }

        private protected override void EnterBytes()
        {
            if (!_handle.TryEnter(_holder))
            {
                throw new ObjectDisposedException("Frame");
            }
        }

        private protected override void LeaveBytes() => _handle.Leave();
    }

    /// <summary>No frame.</summary>
    internal sealed unsafe class InvalidFrame : ReadFrame
    {
        internal InvalidFrame() : base(null, UIntPtr.Zero, 0) { }

        public override void Dispose() { }

        internal override void ThrowIfEnded() { }

        private protected override void EnterBytes() { }

        private protected override void LeaveBytes() { }
    }

    /// <summary>A request while a handler runs on it. The native frame lies on the stack of the handler's thread.</summary>
    internal sealed unsafe class HandlerFrame : Frame
    {
        private readonly Native.Frame* _frame;
        private HandleLock _lock = new HandleLock(false);

        internal HandlerFrame(Native.Frame* frame) : base(frame)
        {
            _frame = frame;
        }

        internal override Native.Frame* Enter()
        {
            if (!_lock.Enter(Timeout.InfiniteTimeSpan))
            {
                throw Ended();
            }
            return _frame;
        }

        internal override void Leave() => _lock.Leave();

        internal override void ThrowIfEnded()
        {
            if (_lock.HasEnded)
            {
                throw Ended();
            }
        }

        public override void Dispose() { }

        /// <summary>The handler has returned: other threads finish what they are doing to the frame.</summary>
        internal void End()
        {
            _lock.End();
            _lock.AwaitOthers();
        }

        private static ObjectDisposedException Ended() =>
            new ObjectDisposedException("Frame", "the handler has returned, so the frame was answered");
    }

    /// <summary>
    /// A request that was taken with <see cref="InPlaceServer.Receive"/>: edit its bytes, then
    /// <see cref="Respond"/> or <see cref="Fail"/>. Disposed unanswered, the client's call fails.
    /// </summary>
    /// <remarks>It may be used on any thread; of two threads that answer it, one gets the exception.</remarks>
    /// <example>
    /// <code>
    /// using (Request request = server.Receive(TimeSpan.FromSeconds(5)))
    /// {
    ///     request.Data.Reverse();
    ///     request.Respond();
    /// }
    /// </code>
    /// </example>
    public sealed unsafe class Request : Frame
    {
        private readonly RequestHandle _handle;

        /// <summary><paramref name="server"/> is null if it is detached.</summary>
        internal Request(OwnerHandle? server, Native.Frame* frame) : base(frame)
        {
            _handle = new RequestHandle(server, frame);
            server?.HandOut(_handle);
        }

        /// <summary>Answers with the bytes as they are now.</summary>
        /// <exception cref="ObjectDisposedException">It was answered, or its server was stopped.</exception>
        public void Respond() => _handle.Answer(null);

        /// <summary>Answers with a failure: the client gets a <see cref="HandlerFailedException"/> with the message.</summary>
        /// <exception cref="ObjectDisposedException">It was answered, or its server was stopped.</exception>
        public void Fail(string message)
        {
            if (message == null)
            {
                throw new ArgumentNullException(nameof(message));
            }
            _handle.Answer(message);
        }

        /// <summary>
        /// Frees it from its server: the next request can be received before this one is answered, which may happen on
        /// any thread, in any order, and after the server was stopped. Nothing is copied.
        /// </summary>
        /// <exception cref="ObjectDisposedException">It was answered, or its server was stopped.</exception>
        public void Detach() => _handle.Detach();

        /// <summary>Fails at the client, with the status 3, unless it was answered.</summary>
        public override void Dispose() => _handle.End();

        internal void Answer(string? failure) => _handle.Answer(failure);

        /// <summary>Whether it is not answered, and nobody waits for the answer.</summary>
        internal bool IsUnwanted
        {
            get
            {
                try
                {
                    return IsCancelled;
                }
                catch (ObjectDisposedException)
                {
                    return false;
                }
            }
        }

        internal override Native.Frame* Enter()
        {
            _handle.EnterBoth();
            return _handle.Frame;
        }

        internal override void Leave() => _handle.LeaveBoth();

        internal override void ThrowIfEnded() => _handle.ThrowIfEnded();
    }
}
