using System;

namespace ZeroBuffer
{
    /// <summary>
    /// Bytes in shared memory that are to be filled and then sent with <see cref="Commit"/>. They hold whatever was
    /// there before: write all of them. Disposed uncommitted, nothing is sent.
    /// </summary>
    /// <remarks>
    /// It may be used on any thread; of two threads that commit it, one gets the exception. A client or writer has one
    /// open buffer at most, which ends with it; of a client, other threads that send wait until it is committed or
    /// disposed. A span that was taken from it must not be used after its end.
    /// </remarks>
    public unsafe class FrameBuffer : IDisposable
    {
        private readonly BufferHandle _handle;
        private readonly byte* _data;

        internal FrameBuffer(OwnerHandle owner, Native.Buffer* buffer)
        {
            _handle = new BufferHandle(owner, buffer, GetType().Name);
            _data = buffer->Data;
            BytesToSend = Interop.Long(buffer->Length);
            Room = Interop.Long(buffer->Capacity);
            owner.HandOut(_handle);
        }

        internal long BytesToSend { get; set; }

        internal long Room { get; private set; }

        /// <summary>The bytes to fill.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public Span<byte> Data
        {
            get
            {
                ThrowIfEnded();
                return new Span<byte>(_data, checked((int)BytesToSend));
            }
        }

        /// <summary>How many bytes will be sent.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Length
        {
            get
            {
                ThrowIfEnded();
                return BytesToSend;
            }
        }

        /// <summary>The most bytes that there is room for, here and for the answer.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Capacity
        {
            get
            {
                ThrowIfEnded();
                return Room;
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public IntPtr Address
        {
            get
            {
                ThrowIfEnded();
                return (IntPtr)_data;
            }
        }

        /// <summary>Sends the bytes, and returns their sequence number. After an exception nothing was sent.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed, or its client or writer was.</exception>
        /// <exception cref="ZeroBufferException">The peer has ended.</exception>
        public ulong Commit() => _handle.Commit(BytesToSend);

        /// <summary>Gives the bytes up, unless they were committed. Does nothing the second time.</summary>
        public void Dispose() => _handle.End();

        internal void ThrowIfEnded() => _handle.ThrowIfEnded();
    }

    /// <summary>A request that is being written where the server will read it.</summary>
    public sealed unsafe class RequestBuffer : FrameBuffer
    {
        internal RequestBuffer(OwnerHandle owner, Native.Buffer* buffer) : base(owner, buffer) { }

        /// <summary>In place: changes how many bytes are sent. Bytes that are added hold whatever was there before.</summary>
        /// <exception cref="TooLargeException">Beyond <see cref="FrameBuffer.Capacity"/>; nothing is changed.</exception>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public void Resize(long length)
        {
            ThrowIfEnded();
            UIntPtr size = Interop.Size(length, "length");
            if (length > Room)
            {
                throw new TooLargeException((ulong)size, (ulong)Room);
            }
            BytesToSend = length;
        }
    }
}
