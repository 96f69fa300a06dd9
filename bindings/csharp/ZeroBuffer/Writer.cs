using System;
using System.Runtime.InteropServices;

namespace ZeroBuffer
{
    /// <summary>What a version 1 <see cref="Writer"/> is made of. <c>null</c> in a property means its default.</summary>
    public sealed class WriterConfig
    {
        /// <summary>How long a write waits for room, in all. Default 5 s.</summary>
        public TimeSpan? WriteTimeout { get; set; }

        /// <summary>How the writer waits for room.</summary>
        public WaitStrategy Wait { get; set; }

        /// <summary>How the writer finds out that the reader has ended.</summary>
        public Liveness Liveness { get; set; }

        /// <summary>The user id that must own the buffer's objects. Default: the process's effective user.</summary>
        public uint? Owner { get; set; }

        /// <summary>Whether to start again with sequence 1 on a used buffer whose last one cannot be determined.</summary>
        public bool RestartSequence { get; set; }
    }

    /// <summary>
    /// Version 1: the writer to a reader's buffer. It may be used on any thread; one call runs at a time. Disposing it
    /// gives the writer's role back; what was written stays there to be read.
    /// </summary>
    public sealed unsafe class Writer : IDisposable
    {
        private readonly WriterHandle _handle;

        /// <summary>
        /// Attaches, waiting until the timeout has passed for the buffer to be there and to have no other writer; zero
        /// tries once. <paramref name="config"/> may be null for the defaults.
        /// </summary>
        /// <exception cref="NotRunningException">No reader has the buffer.</exception>
        /// <exception cref="BusyException">Another writer has it.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        public Writer(string name, TimeSpan timeout, WriterConfig config = null)
        {
            byte[] zeroTerminated = Interop.Name(name);
            long nanoseconds = Interop.Nanoseconds(timeout);
            config = config ?? new WriterConfig();
            var native = new Native.WriterConfig
            {
                Size = (UIntPtr)sizeof(Native.WriterConfig),
                WriteTimeout = Interop.NanosecondsOrDefault(config.WriteTimeout),
                Wait = (uint)config.Wait,
                Liveness = (uint)config.Liveness,
                HasOwner = config.Owner.HasValue ? 1u : 0u,
                Owner = config.Owner.GetValueOrDefault(),
                RestartSequence = config.RestartSequence ? 1u : 0u,
            };
            _handle = new WriterHandle();
            fixed (byte* text = zeroTerminated)
            {
                IntPtr made;
                ZeroBufferException.ThrowIfFailed(Native.zb_writer_connect(text, &native, nanoseconds, &made));
                _handle.Take(made);
            }
            Name = name;
        }

        /// <summary>The buffer's name.</summary>
        public string Name { get; private set; }

        /// <summary>Whether the reader is there at this moment. False while a buffer is open.</summary>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public bool IsReaderConnected
        {
            get
            {
                IntPtr writer = _handle.Enter();
                bool connected = Native.zb_writer_is_reader_connected(writer) != 0;
                _handle.Leave();
                return connected;
            }
        }

        /// <summary>Describes the stream, once in the buffer's life, before the first frame.</summary>
        /// <exception cref="MetadataAlreadyWrittenException">It has been described.</exception>
        /// <exception cref="TooLargeException">The metadata does not fit.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public void SetMetadata(ReadOnlySpan<byte> data)
        {
            IntPtr writer = _handle.Enter();
            try
            {
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    int status = Native.zb_writer_set_metadata(writer, bytes, (UIntPtr)data.Length);
                    _handle.ThrowIfFailed(status);
                }
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Writes a copy of <paramref name="data"/> as one frame, and returns its sequence number.</summary>
        /// <exception cref="FullException">There was no room in time.</exception>
        /// <exception cref="EmptyFrameException">There are no bytes.</exception>
        /// <exception cref="TooLargeException">There is never room for it.</exception>
        /// <exception cref="PeerGoneException">The reader has ended.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public ulong WriteFrame(ReadOnlySpan<byte> data)
        {
            ulong sequence;
            IntPtr writer = _handle.Enter();
            try
            {
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    int status = Native.zb_writer_write(writer, bytes, (UIntPtr)data.Length, &sequence);
                    _handle.ThrowIfFailed(status);
                }
            }
            finally
            {
                _handle.Leave();
            }
            return sequence;
        }

        /// <summary>A frame of <paramref name="size"/> bytes to be filled where the reader will read it.</summary>
        /// <exception cref="ClaimOpenException">Another frame is open.</exception>
        /// <exception cref="ZeroBufferException">As <see cref="WriteFrame"/>.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public FrameBuffer AcquireFrame(long size)
        {
            UIntPtr bytes = Interop.Size(size, "size");
            IntPtr writer = _handle.Enter();
            try
            {
                Native.Buffer buffer;
                _handle.ThrowIfFailed(Native.zb_writer_acquire(writer, bytes, &buffer));
                return new FrameBuffer(_handle, &buffer);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Gives the writer's role back, and an open frame up.</summary>
        public void Dispose()
        {
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
        }
    }
}
