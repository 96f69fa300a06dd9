using System;
using System.Runtime.InteropServices;
using System.Text;

namespace ZeroBuffer
{
    /// <summary>
    /// A request in a server's hands: bytes in shared memory, to be edited where they lie. What they are when the handler
    /// returns is the answer.
    /// </summary>
    /// <remarks>
    /// In a handler it is valid until the handler returns; a span that was taken from it must not be used after that.
    /// </remarks>
    public unsafe class Frame
    {
        private Native.Frame* _frame;

        internal Frame(Native.Frame* frame)
        {
            _frame = frame;
            Sequence = frame->Sequence;
        }

        /// <summary>The bytes. In the handler of an immutable server they are to be read only.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public Span<byte> Data
        {
            get
            {
                Native.Frame* frame = Held;
                return Interop.Span(frame->Data, frame->Length);
            }
        }

        /// <summary>The request's number, as its client counts; its answer carries the same one.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>How many bytes there are: as in the request, until it is changed for the answer.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public long Length
        {
            get { return Interop.Long(Held->Length); }
        }

        /// <summary>The most bytes that the answer can have.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public long Capacity
        {
            get { return Interop.Long(Held->Capacity); }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public IntPtr Address
        {
            get { return (IntPtr)Held->Data; }
        }

        /// <summary>What the client that sent it has published about itself; no bytes if nothing.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public byte[] Metadata
        {
            get
            {
                byte* data;
                UIntPtr length;
                Enter();
                try
                {
                    ZeroBufferException.ThrowIfFailed(Native.zb_frame_metadata(Held, &data, &length));
                    return Interop.ReadOnlySpan(data, length).ToArray();
                }
                finally
                {
                    Exit();
                }
            }
        }

        /// <summary>In place: changes the length of the answer; bytes that are added are zero.</summary>
        /// <exception cref="TooLargeException">Beyond <see cref="Capacity"/>; nothing is changed.</exception>
        /// <exception cref="UnsupportedException">With two buffers.</exception>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public void Resize(long length)
        {
            UIntPtr size = Interop.Size(length, "length");
            Enter();
            try
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_frame_resize(Held, size));
            }
            finally
            {
                Exit();
            }
        }

        /// <summary>In the handler of an immutable server: the answer, of that length, to be filled. Exactly once.</summary>
        /// <exception cref="InvalidStateException">It was called before, or the server is of another kind.</exception>
        /// <exception cref="TooLargeException">The client's buffer cannot take it.</exception>
        /// <exception cref="ZeroBufferException">The client is gone, or the server is being stopped.</exception>
        public Span<byte> Reply(int length)
        {
            byte* data;
            UIntPtr size = Interop.Size(length, "length");
            ZeroBufferException.ThrowIfFailed(Native.zb_frame_reply(Held, size, &data));
            return Interop.Span(data, size);
        }

        internal Native.Frame* Held
        {
            get
            {
                Native.Frame* frame = _frame;
                if (frame == null)
                {
                    throw new ObjectDisposedException(GetType().Name, "the frame was answered");
                }
                return frame;
            }
        }

        internal bool IsHeld
        {
            get { return _frame != null; }
        }

        /// <summary>The frame lies there from now on; null: it was answered.</summary>
        internal void Move(Native.Frame* frame)
        {
            _frame = frame;
        }

        /// <summary>Keeps others away from the server that the frame is still in.</summary>
        internal virtual void Enter()
        {
        }

        internal virtual void Exit()
        {
        }

        internal static void Fail(Native.Frame* frame, string message)
        {
            byte[] text = Encoding.UTF8.GetBytes(message);
            fixed (byte* bytes = text)
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_frame_fail(frame, bytes, (UIntPtr)text.Length));
            }
        }
    }

    /// <summary>
    /// A request that was taken with <see cref="IInPlaceDuplexServer.Receive"/>: edit its bytes, then
    /// <see cref="Respond"/> or <see cref="Fail"/>. Disposed unanswered, the client's call fails.
    /// </summary>
    public sealed unsafe class Request : Frame, IDisposable
    {
        /// <summary>Null once the frame is free of its server, whose memory it lies in until then.</summary>
        private DuplexServer _server;
        private DetachedFrameHandle _detached;

        internal Request(Native.Frame* frame, DuplexServer server) : base(frame)
        {
            _server = server;
        }

        /// <summary>Answers with the bytes as they are now.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public void Respond()
        {
            Answer(() => ZeroBufferException.ThrowIfFailed(Native.zb_frame_respond(Held)));
        }

        /// <summary>Answers with a failure: the client gets a <see cref="HandlerFailedException"/> with the message.</summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public void Fail(string message)
        {
            if (message == null)
            {
                throw new ArgumentNullException("message");
            }
            Answer(() => Fail(Held, message));
        }

        /// <summary>
        /// Frees it from its server: the next request can be received before this one is answered, which may happen on
        /// any thread, in any order, and after the server was stopped. Nothing is copied.
        /// </summary>
        /// <exception cref="ObjectDisposedException">It was answered.</exception>
        public void Detach()
        {
            if (_detached != null && IsHeld)
            {
                return;
            }
            Enter();
            try
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_frame_detach(Held));
                var own = (Native.Frame*)Marshal.AllocHGlobal(sizeof(Native.Frame));
                *own = *Held;
                *Held = default(Native.Frame);
                _detached = new DetachedFrameHandle();
                _detached.Take((IntPtr)own);
                Move(own);
            }
            finally
            {
                Exit();
            }
            _server = null;
        }

        /// <summary>Fails at the client, with the status 3, unless it was answered.</summary>
        public void Dispose()
        {
            if (IsHeld)
            {
                try
                {
                    Answer(() => Native.zb_frame_abandon(Held));
                }
                catch (ObjectDisposedException)
                {
                    // Its server has ended, and failed it.
                }
            }
        }

        /// <summary>The server is stopped or closed: a frame that is still in it ends.</summary>
        internal void End(Native.Frame* inServer)
        {
            if (_server != null && IsHeld && Held == inServer)
            {
                Move(null);
            }
        }

        private void Answer(Action answer)
        {
            Enter();
            try
            {
                answer();
                Move(null);
            }
            finally
            {
                Exit();
            }
            if (_detached != null)
            {
                _detached.Dispose();
            }
        }

        internal override void Enter()
        {
            if (_server != null)
            {
                _server.Door.Enter();
            }
        }

        internal override void Exit()
        {
            if (_server != null)
            {
                _server.Door.Exit();
            }
        }
    }
}
