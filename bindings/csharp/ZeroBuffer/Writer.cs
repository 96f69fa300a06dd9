using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using System;
using System.Runtime.InteropServices;
using System.Threading;

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
    /// <example>
    /// <code>
    /// using (var writer = new Writer("camera"))
    /// {
    ///     writer.GetFrameBuffer(3, out ulong sequence).Fill(7);
    ///     writer.CommitFrame();
    ///     Console.WriteLine(sequence); // 1
    /// }
    /// </code>
    /// </example>
    public sealed unsafe class Writer : IDisposable
    {
        private static readonly TimeSpan DefaultWriteTimeout = TimeSpan.FromSeconds(5);

        private readonly WriterHandle _handle = new WriterHandle();
        private readonly ILogger _logger;

        /// <summary>What <see cref="GetFrameBuffer"/> has opened.</summary>
        private FrameBuffer? _open;

        /// <summary>What <see cref="GetMetadataBuffer"/> has given out.</summary>
        private byte[]? _metadata;

        private TimeSpan _writeTimeout;
        private volatile bool _timeoutIsNew;

        /// <summary>Attaches to the buffer, which must be there.</summary>
        /// <exception cref="BufferNotFoundException">No reader has the buffer.</exception>
        /// <exception cref="WriterAlreadyConnectedException">Another writer has it.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        public Writer(string name) : this(name, NullLogger<Writer>.Instance) { }

        /// <summary>As <see cref="Writer(string)"/>; it says to the logger what happens.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="Writer(string)"/>.</exception>
        public Writer(string name, ILogger<Writer> logger) : this(name, TimeSpan.Zero, new WriterConfig(), logger) { }

        private Writer(string name, TimeSpan timeout, WriterConfig config, ILogger logger)
        {
            Interop.RefuseEmpty(name);
            Name = name;
            _logger = logger ?? throw new ArgumentNullException(nameof(logger));
            _writeTimeout = config.WriteTimeout ?? DefaultWriteTimeout;
            long nanoseconds = Interop.Nanoseconds(timeout);
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
            fixed (byte* text = Interop.Name(name))
            {
                IntPtr made;
                _handle.ThrowIfFailed(Native.zb_writer_connect(text, &native, nanoseconds, &made));
                _handle.Take(made);
            }
            _logger.LogDebug("Attached to buffer {Name}", name);
        }

        /// <summary>
        /// As <see cref="Writer(string)"/>, waiting until the timeout has passed for the buffer to be there and to have no
        /// other writer; zero tries once. <paramref name="config"/> may be null for the defaults.
        /// </summary>
        /// <exception cref="ZeroBufferException">As <see cref="Writer(string)"/>.</exception>
        public static Writer Connect(string name, TimeSpan timeout, WriterConfig? config = null, ILogger? logger = null) =>
            new Writer(name, timeout, config ?? new WriterConfig(), logger ?? NullLogger.Instance);

        /// <summary>The buffer's name.</summary>
        public string Name { get; private set; }

        /// <summary>How long a write waits for room, in all. Default 5 s.</summary>
        /// <exception cref="ArgumentOutOfRangeException">It is set to what is not positive.</exception>
        public TimeSpan WriteTimeout
        {
            get => _writeTimeout;
            set
            {
                if (value <= TimeSpan.Zero)
                {
                    throw new ArgumentOutOfRangeException(nameof(value), value, "a write timeout is positive");
                }
                _writeTimeout = value;
                _timeoutIsNew = true;
            }
        }

        /// <summary>
        /// Whether the reader is there at this moment; false after the end. While a frame is being filled it says what was true
        /// before.
        /// </summary>
        public bool IsReaderConnected()
        {
            try
            {
                IntPtr writer = _handle.Enter();
                bool connected = Volatile.Read(ref _open) != null || Native.zb_writer_is_reader_connected(writer) != 0;
                _handle.Leave();
                return connected;
            }
            catch (ObjectDisposedException)
            {
                return false;
            }
        }

        /// <summary>Bytes for metadata of that size, to be filled before <see cref="CommitMetadata"/>.</summary>
        /// <exception cref="ArgumentOutOfRangeException"><paramref name="size"/> is negative.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public Span<byte> GetMetadataBuffer(int size)
        {
            _handle.ThrowIfEnded();
            Interop.Size(size, "size");
            _metadata = new byte[size];
            return _metadata;
        }

        /// <summary>Describes the stream with what was filled, as <see cref="SetMetadata"/> does.</summary>
        /// <exception cref="InvalidOperationException">There is nothing to commit, or it was described before.</exception>
        public void CommitMetadata()
        {
            SetMetadata(_metadata ?? throw new InvalidOperationException("there is no metadata: call GetMetadataBuffer first"));
            _metadata = null;
        }

        /// <summary>Describes the stream, once in the buffer's life, before the first frame.</summary>
        /// <exception cref="InvalidOperationException">It has been described.</exception>
        /// <exception cref="ArgumentException">The metadata does not fit.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public void SetMetadata(ReadOnlySpan<byte> data)
        {
            IntPtr writer = _handle.Enter();
            try
            {
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    _handle.ThrowIfFailed(Native.zb_writer_set_metadata(writer, bytes, (UIntPtr)data.Length));
                }
            }
            catch (FrameTooLargeException error)
            {
                throw new ArgumentException(error.Message, "data", error);
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Writes a copy of <paramref name="data"/> as one frame, and returns its sequence number.</summary>
        /// <exception cref="BufferFullException">There was no room in time.</exception>
        /// <exception cref="EmptyFrameException">There are no bytes.</exception>
        /// <exception cref="FrameTooLargeException">There is never room for it.</exception>
        /// <exception cref="ReaderDeadException">The reader has ended.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public ulong WriteFrame(ReadOnlySpan<byte> data)
        {
            AbandonOpen();
            ulong sequence;
            IntPtr writer = _handle.Enter();
            try
            {
                ApplyTimeout(writer);
                fixed (byte* bytes = &MemoryMarshal.GetReference(data))
                {
                    ThrowIfFailed(Native.zb_writer_write(writer, bytes, (UIntPtr)data.Length, &sequence));
                }
            }
            finally
            {
                _handle.Leave();
            }
            if (_logger.IsEnabled(LogLevel.Trace))
            {
                _logger.LogTrace("Frame {Sequence} of {Size} bytes written to {Name}", sequence, data.Length, Name);
            }
            return sequence;
        }

        /// <summary>
        /// The bytes of a frame, to be filled where the reader will read it, and its number. Call <see cref="CommitFrame"/>
        /// afterwards; a frame that was not committed is abandoned when the next one is begun.
        /// </summary>
        /// <exception cref="ZeroBufferException">As <see cref="WriteFrame"/>.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public Span<byte> GetFrameBuffer(int size, out ulong sequenceNumber)
        {
            AbandonOpen();
            FrameBuffer open = Acquire(size, out sequenceNumber);
            Volatile.Write(ref _open, open);
            return open.Data;
        }

        /// <summary>Writes the frame that <see cref="GetFrameBuffer"/> has begun.</summary>
        /// <exception cref="ReaderDeadException">The reader has ended.</exception>
        /// <exception cref="InvalidOperationException">No frame was begun.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public void CommitFrame()
        {
            FrameBuffer? open = Interlocked.Exchange(ref _open, null);
            _handle.ThrowIfEnded();
            if (open == null)
            {
                throw new InvalidOperationException("no frame was begun: call GetFrameBuffer first");
            }
            open.Commit();
        }

        /// <summary>As <see cref="GetFrameBuffer"/>, in an object: it is written with <see cref="FrameBuffer.Commit"/>.</summary>
        /// <exception cref="ClaimOpenException">Another frame is open.</exception>
        /// <exception cref="ZeroBufferException">As <see cref="WriteFrame"/>.</exception>
        /// <exception cref="ObjectDisposedException">The writer was disposed.</exception>
        public FrameBuffer AcquireFrame(long size) => Acquire(size, out _);

        private FrameBuffer Acquire(long size, out ulong sequence)
        {
            UIntPtr bytes = Interop.Size(size, "size");
            IntPtr writer = _handle.Enter();
            try
            {
                ApplyTimeout(writer);
                sequence = Native.zb_writer_next_sequence(writer);
                Native.Buffer buffer;
                ThrowIfFailed(Native.zb_writer_acquire(writer, bytes, &buffer));
                return new FrameBuffer(_handle, &buffer);
            }
            finally
            {
                _handle.Leave();
            }
        }

        private void AbandonOpen() => Interlocked.Exchange(ref _open, null)?.Dispose();

        /// <summary>For a thread inside. As long as a frame is open the native library does not take it.</summary>
        private void ApplyTimeout(IntPtr writer)
        {
            if (_timeoutIsNew)
            {
                long nanoseconds = Interop.Nanoseconds(_writeTimeout);
                _timeoutIsNew = Native.zb_writer_set_write_timeout(writer, nanoseconds) != 0;
            }
        }

        private void ThrowIfFailed(int status)
        {
            if (status != 0)
            {
                Exception error = _handle.Failure();
                _logger.LogDebug("A frame was not written to {Name}: {Reason}", Name, error.Message);
                throw error;
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
