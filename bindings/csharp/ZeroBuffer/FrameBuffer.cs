using System;

namespace ZeroBuffer
{
    /// <summary>
    /// Bytes in shared memory that are to be filled and then sent with <see cref="Commit"/>. They hold whatever was
    /// there before: write all of them. Disposed uncommitted, nothing is sent.
    /// </summary>
    /// <remarks>A client or writer has one open buffer at most, which ends with it.</remarks>
    public unsafe class FrameBuffer : IDisposable
    {
        private readonly Door _door;
        private readonly BufferOwner _owner;
        private Native.Buffer _buffer;

        internal FrameBuffer(Door door, BufferOwner owner, Native.Buffer buffer)
        {
            _door = door;
            _owner = owner;
            _buffer = buffer;
        }

        /// <summary>The bytes to fill.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public Span<byte> Data
        {
            get
            {
                Check();
                return Interop.Span(_buffer.Data, _buffer.Length);
            }
        }

        /// <summary>How many bytes will be sent.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Length
        {
            get
            {
                Check();
                return Interop.Long(_buffer.Length);
            }
        }

        /// <summary>The most bytes that there is room for, here and for the answer.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public long Capacity
        {
            get
            {
                Check();
                return Interop.Long(_buffer.Capacity);
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public IntPtr Address
        {
            get
            {
                Check();
                return (IntPtr)_buffer.Data;
            }
        }

        /// <summary>Sends the bytes, and returns their sequence number.</summary>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        /// <exception cref="ZeroBufferException">The peer is gone.</exception>
        public ulong Commit()
        {
            ulong sequence;
            _door.Enter();
            try
            {
                Check();
                fixed (Native.Buffer* buffer = &_buffer)
                {
                    int status = Native.zb_buffer_commit(buffer, &sequence);
                    if (buffer->Data == null)
                    {
                        _owner.Open = null;
                    }
                    ZeroBufferException.ThrowIfFailed(status);
                }
            }
            finally
            {
                _door.Exit();
            }
            return sequence;
        }

        /// <summary>Gives the bytes up, unless they were committed.</summary>
        public void Dispose()
        {
            if (_buffer.Data == null)
            {
                return;
            }
            try
            {
                _door.Enter();
            }
            catch (ObjectDisposedException)
            {
                // It ended with its owner.
                return;
            }
            try
            {
                fixed (Native.Buffer* buffer = &_buffer)
                {
                    Native.zb_buffer_abandon(buffer);
                }
                _owner.Open = null;
            }
            finally
            {
                _door.Exit();
            }
        }

        /// <summary>Its owner is being closed, and gives it up.</summary>
        internal void Invalidate()
        {
            _buffer = default(Native.Buffer);
        }

        internal void SetLength(long length)
        {
            Check();
            UIntPtr size = Interop.Size(length, "length");
            if ((ulong)size > (ulong)_buffer.Capacity)
            {
                throw new TooLargeException((ulong)size, (ulong)_buffer.Capacity);
            }
            _buffer.Length = size;
        }

        private void Check()
        {
            if (_buffer.Data == null)
            {
                throw new ObjectDisposedException(GetType().Name);
            }
        }
    }

    /// <summary>A request that is being written where the server will read it.</summary>
    public sealed class RequestBuffer : FrameBuffer
    {
        internal RequestBuffer(Door door, BufferOwner owner, Native.Buffer buffer) : base(door, owner, buffer)
        {
        }

        /// <summary>In place: changes how many bytes are sent. Bytes that are added hold whatever was there before.</summary>
        /// <exception cref="TooLargeException">Beyond <see cref="FrameBuffer.Capacity"/>; nothing is changed.</exception>
        /// <exception cref="ObjectDisposedException">It was committed or disposed.</exception>
        public void Resize(long length)
        {
            SetLength(length);
        }
    }

    /// <summary>Knows which buffer ends with a client or writer.</summary>
    internal sealed class BufferOwner
    {
        internal FrameBuffer Open { get; set; }

        internal void Invalidate()
        {
            if (Open != null)
            {
                Open.Invalidate();
            }
            Open = null;
        }
    }
}
