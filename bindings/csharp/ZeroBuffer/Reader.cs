using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using System;
using System.Diagnostics;
using System.IO;
using System.Threading;

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
                throw new ArgumentNullException(nameof(buffer));
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
    /// <example>
    /// <code>
    /// using (var reader = new Reader("camera", new BufferConfig(1024, 1 &lt;&lt; 20)))
    /// using (var writer = new Writer("camera"))
    /// {
    ///     writer.WriteFrame(new byte[] { 1, 2, 3 });
    ///     using (Frame frame = reader.ReadFrame())
    ///     {
    ///         Console.WriteLine(frame.Sequence + ": " + frame.Size); // 1: 3
    ///     }
    /// }
    /// </code>
    /// </example>
    public sealed unsafe class Reader : IDisposable
    {
        /// <summary>How long reading waits if it is not told.</summary>
        private static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(5);
        private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(20);

        private readonly ReaderHandle _handle = new ReaderHandle();
        private readonly ILogger _logger;

        /// <summary>Creates the buffer; writers can attach as soon as this returns.</summary>
        /// <exception cref="ReaderAlreadyConnectedException">A reader of that name lives.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        /// <exception cref="ArgumentException">The name is null or empty, or there is no configuration.</exception>
        public Reader(string name, BufferConfig config) : this(name, config, NullLogger<Reader>.Instance) { }

        /// <summary>As <see cref="Reader(string, BufferConfig)"/>; it says to the logger what happens.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="Reader(string, BufferConfig)"/>.</exception>
        public Reader(string name, BufferConfig config, ILogger<Reader> logger)
            : this(name, new ReaderConfig(config ?? throw new ArgumentNullException(nameof(config))), (ILogger)logger) { }

        private Reader(string name, ReaderConfig config, ILogger logger)
        {
            Interop.RefuseEmpty(name);
            Name = name;
            _logger = logger ?? throw new ArgumentNullException(nameof(logger));
            var native = new Native.ReaderConfig
            {
                Size = (UIntPtr)sizeof(Native.ReaderConfig),
                MetadataSize = (UIntPtr)(ulong)config.Buffer.MetadataSize,
                PayloadSize = (UIntPtr)(ulong)config.Buffer.LongPayloadSize,
                Mode = Interop.Positive(config.Mode, "Mode"),
                Wait = (uint)config.Wait,
                Liveness = (uint)config.Liveness,
            };
            fixed (byte* text = Interop.Name(name))
            {
                IntPtr made;
                _handle.ThrowIfFailed(Native.zb_reader_create(text, &native, &made));
                _handle.Take(made);
            }
            _logger.LogDebug("Buffer {Name} created with {PayloadSize} bytes", name, config.Buffer.LongPayloadSize);
        }

        /// <summary>As <see cref="Reader(string, BufferConfig)"/>, with all that can be chosen.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="Reader(string, BufferConfig)"/>.</exception>
        public static Reader Create(string name, ReaderConfig config, ILogger? logger = null) =>
            new Reader(name, config ?? throw new ArgumentNullException(nameof(config)), logger ?? NullLogger.Instance);

        /// <summary>
        /// Whether the buffer is there and has a reader, waiting for the buffer until the timeout has passed. A buffer whose
        /// reader has left is not waited for.
        /// </summary>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        public static bool WaitExists(string name, TimeSpan timeout, ILogger? logger = null)
        {
            Interop.RefuseEmpty(name);
            var since = Stopwatch.StartNew();
            while (true)
            {
                bool? hasReader = Segment.HasReader(name);
                if (hasReader.HasValue)
                {
                    logger?.LogDebug("Buffer {Name} exists; has a reader: {HasReader}", name, hasReader.Value);
                    return hasReader.Value;
                }
                if (timeout != Timeout.InfiniteTimeSpan && since.Elapsed >= timeout)
                {
                    logger?.LogDebug("Buffer {Name} did not come within {Timeout}", name, timeout);
                    return false;
                }
                Thread.Sleep(Pause);
            }
        }

        /// <summary>The buffer's name.</summary>
        public string Name { get; private set; }

        /// <summary>Whether a live writer is attached at this moment; false after the end.</summary>
        public bool IsWriterConnected()
        {
            if (!_handle.TryEnter())
            {
                return false;
            }
            bool connected = Native.zb_reader_is_writer_connected(_handle.Inside) != 0;
            _handle.Leave();
            return connected;
        }

        /// <summary>Whether a writer is attached, waiting for one for so many milliseconds.</summary>
        public bool IsWriterConnected(int timeoutMs)
        {
            var since = Stopwatch.StartNew();
            while (!IsWriterConnected())
            {
                if (since.ElapsedMilliseconds >= timeoutMs || _handle.HasEnded)
                {
                    return false;
                }
                Thread.Sleep(Pause);
            }
            return true;
        }

        /// <summary>A copy of the writer's metadata; no bytes if it has set none. Look after the first frame.</summary>
        /// <exception cref="ObjectDisposedException">The reader was disposed.</exception>
        public ReadOnlySpan<byte> GetMetadata()
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

        /// <summary>
        /// The next frame, waiting for it until the timeout has passed, or for 5 s; zero looks once. If there is none in time,
        /// it is <see cref="Frame.Invalid"/>. Dispose of it to give its bytes back to the ring.
        /// </summary>
        /// <exception cref="WriterDeadException">
        /// The writer has ended, and everything that it had written was read; or none has come in time.
        /// </exception>
        /// <exception cref="ObjectDisposedException">The reader was disposed.</exception>
        public Frame ReadFrame(TimeSpan? timeout = null)
        {
            long nanoseconds = Interop.Nanoseconds(timeout ?? DefaultTimeout);
            IntPtr reader = _handle.Enter();
            try
            {
                Native.View frame;
                int status = Native.zb_reader_read(reader, nanoseconds, &frame);
                if (status == 0)
                {
                    return new ViewFrame(frame);
                }
                if (status == (int)ErrorKind.Timeout && !_handle.HasEnded)
                {
                    return Frame.Invalid;
                }
                throw Logged(_handle.Failure());
            }
            finally
            {
                _handle.Leave();
            }
        }

        private Exception Logged(Exception error)
        {
            if (error is WriterDeadException)
            {
                _logger.LogWarning("Buffer {Name}: {Reason}", Name, error.Message);
            }
            else if (!_handle.HasEnded)
            {
                _logger.LogError(error, "Buffer {Name} cannot be read", Name);
            }
            return error;
        }

        /// <summary>Ends the waits of other threads, for good; any thread may call it.</summary>
        internal void EndWaits() => _handle.ShutDown();

        /// <summary>Removes the buffer. Frames that are held stay.</summary>
        public void Dispose()
        {
            if (_handle.End())
            {
                _handle.AwaitFreed();
            }
        }
    }

    /// <summary>What can be seen of a buffer of version 1 without attaching to it.</summary>
    internal static class Segment
    {
        /// <summary>Where the reader's process id stands (protocol-v1.md).</summary>
        private const int ReaderPid = 88;

        /// <summary>Null if there is no buffer, or not all of it.</summary>
        internal static bool? HasReader(string name)
        {
            const string Folder = "/dev/shm/";
            if (!File.Exists(Folder + "sem.sem-w-" + name) || !File.Exists(Folder + "sem.sem-r-" + name))
            {
                return null;
            }
            try
            {
                using (FileStream file = File.Open(Folder + name, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete))
                {
                    var pid = new byte[sizeof(ulong)];
                    file.Position = ReaderPid;
                    return file.Read(pid, 0, pid.Length) == pid.Length ? BitConverter.ToUInt64(pid, 0) != 0 : (bool?)null;
                }
            }
            catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
            {
                return null;
            }
        }
    }
}
