using System;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// Bytes in shared memory that are to be filled and then sent with <see cref="Commit"/>. They hold whatever was
    /// there before: write all of them. Disposed uncommitted, nothing is sent.
    /// </summary>
    /// <remarks>
    /// A client or writer has one open buffer at most, which ends with it. With a client for many threads, other threads
    /// that send wait until it is committed or disposed.
    /// </remarks>
    public unsafe class FrameBuffer : IDisposable
    {
        private readonly Door _door;
        private Lease _lease;

        internal FrameBuffer(Door door, Lease lease)
        {
            _door = door;
            _lease = lease;
        }

        /// <summary>The bytes to fill.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public Span<byte> Data
        {
            get
            {
                Native.Buffer* buffer = Held;
                return Interop.Span(buffer->Data, buffer->Length);
            }
        }

        /// <summary>How many bytes will be sent.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Length
        {
            get { return Interop.Long(Held->Length); }
        }

        /// <summary>The most bytes that there is room for, here and for the answer.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Capacity
        {
            get { return Interop.Long(Held->Capacity); }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public IntPtr Address
        {
            get { return (IntPtr)Held->Data; }
        }

        /// <summary>Sends the bytes, and returns their sequence number. After an exception nothing was sent.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed, or its client or writer was.</exception>
        /// <exception cref="ZeroBufferException">The peer is gone.</exception>
        public ulong Commit()
        {
            ulong sequence;
            _door.Enter();
            try
            {
                ZeroBufferException.ThrowIfFailed(Native.zb_buffer_commit(Held, &sequence));
            }
            finally
            {
                _door.Exit();
            }
            Dispose();
            return sequence;
        }

        /// <summary>Gives the bytes up, unless they were committed. Does nothing the second time.</summary>
        public void Dispose()
        {
            Lease lease = Interlocked.Exchange(ref _lease, null);
            if (lease != null)
            {
                lease.Release();
            }
        }

        internal Native.Buffer* Held
        {
            get
            {
                Lease lease = _lease;
                // Without data if its client or writer has ended.
                if (lease == null || lease.Buffer->Data == null)
                {
                    throw new ObjectDisposedException(GetType().Name);
                }
                return lease.Buffer;
            }
        }
    }

    /// <summary>A request that is being written where the server will read it.</summary>
    public sealed unsafe class RequestBuffer : FrameBuffer
    {
        internal RequestBuffer(Door door, Lease lease) : base(door, lease)
        {
        }

        /// <summary>In place: changes how many bytes are sent. Bytes that are added hold whatever was there before.</summary>
        /// <exception cref="TooLargeException">Beyond <see cref="FrameBuffer.Capacity"/>; nothing is changed.</exception>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public void Resize(long length)
        {
            Native.Buffer* buffer = Held;
            UIntPtr size = Interop.Size(length, "length");
            if ((ulong)size > (ulong)buffer->Capacity)
            {
                throw new TooLargeException((ulong)size, (ulong)buffer->Capacity);
            }
            buffer->Length = size;
        }
    }
}
