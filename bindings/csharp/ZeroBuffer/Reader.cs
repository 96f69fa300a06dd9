using System;

namespace ZeroBuffer
{
    /// <summary>What a version 1 <see cref="Reader"/> is made of. <c>null</c> in a property means its default.</summary>
    public sealed class ReaderConfig
    {
        /// <summary>The defaults with these sizes. A frame of n bytes takes n + 16 bytes of the ring.</summary>
        /// <exception cref="ArgumentNullException"><paramref name="buffer"/> is null.</exception>
        public ReaderConfig(BufferConfig buffer)
        {
            if (buffer == null)
            {
                throw new ArgumentNullException("buffer");
            }
            Buffer = buffer;
        }

        /// <summary>The sizes.</summary>
        public BufferConfig Buffer { get; private set; }

        /// <summary>Permission bits of the buffer's objects. Default 0600: the same user only.</summary>
        public int? Mode { get; set; }

        /// <summary>How the reader waits for frames.</summary>
        public WaitStrategy Wait { get; set; }

        /// <summary>How the reader finds out that a writer has ended.</summary>
        public Liveness Liveness { get; set; }

        /// <summary>The defaults with these sizes.</summary>
        public static implicit operator ReaderConfig(BufferConfig buffer) => new ReaderConfig(buffer);
    }

    /// <summary>
    /// Version 1: the reader of a buffer, which creates it and owns it. Any number of threads may use it at once; each
    /// frame goes to one of them. Disposing it removes the buffer.
    /// </summary>
    public sealed unsafe class Reader : IDisposable
    {
        private readonly ReaderHandle _handle;

        /// <summary>Creates the buffer; writers can attach as soon as this returns.</summary>
        /// <exception cref="AlreadyRunningException">A reader of that name lives.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        public Reader(string name, ReaderConfig config)
        {
            byte[] zeroTerminated = Interop.Name(name);
            if (config == null)
            {
                throw new ArgumentNullException("config");
            }
            var native = new Native.ReaderConfig
            {
                Size = (UIntPtr)sizeof(Native.ReaderConfig),
                MetadataSize = (UIntPtr)(ulong)config.Buffer.MetadataSize,
                PayloadSize = (UIntPtr)(ulong)config.Buffer.PayloadSize,
                Mode = Interop.Positive(config.Mode, "Mode"),
                Wait = (uint)config.Wait,
                Liveness = (uint)config.Liveness,
            };
            _handle = new ReaderHandle();
            fixed (byte* text = zeroTerminated)
            {
                IntPtr made;
                ZeroBufferException.ThrowIfFailed(Native.zb_reader_create(text, &native, &made));
                _handle.Take(made);
            }
            Name = name;
        }

        /// <summary>The buffer's name.</summary>
        public string Name { get; private set; }

        /// <summary>Whether a live writer is attached at this moment.</summary>
        /// <exception cref="ObjectDisposedException">The reader was disposed.</exception>
        public bool IsWriterConnected
        {
            get
            {
                IntPtr reader = _handle.Enter();
                bool connected = Native.zb_reader_is_writer_connected(reader) != 0;
                _handle.Leave();
                return connected;
            }
        }

        /// <summary>The writer's metadata; no bytes if it has set none. Look after the first frame.</summary>
        /// <exception cref="ObjectDisposedException">The reader was disposed.</exception>
        public byte[] Metadata
        {
            get
            {
                IntPtr reader = _handle.Enter();
                try
                {
                    return Interop.Bytes(
                        (buffer, capacity, length) => Native.zb_reader_metadata(reader, buffer, capacity, length));
                }
                finally
                {
                    _handle.Leave();
                }
            }
        }

        /// <summary>The next frame, waiting for it until the timeout has passed; zero looks once.</summary>
        /// <exception cref="ChannelTimeoutException">There was none.</exception>
        /// <exception cref="NotConnectedYetException">No writer has attached yet.</exception>
        /// <exception cref="PeerGoneException">The writer has ended, and everything that it had written was read.</exception>
        /// <exception cref="ObjectDisposedException">The reader was disposed.</exception>
        public FrameView ReadFrame(TimeSpan timeout)
        {
            long nanoseconds = Interop.Nanoseconds(timeout);
            IntPtr reader = _handle.Enter();
            try
            {
                Native.View frame;
                _handle.ThrowIfFailed(Native.zb_reader_read(reader, nanoseconds, &frame));
                return new FrameView(&frame);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Removes the buffer. Frames that are held stay.</summary>
        public void Dispose()
        {
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
        }
    }
}
