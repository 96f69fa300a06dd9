using Microsoft.Extensions.Logging;
using System;

namespace ZeroBuffer
{
    /// <summary>How a side waits for the other.</summary>
    public enum WaitStrategy
    {
        /// <summary>Spin for a while, then sleep. For nearly everybody.</summary>
        SpinThenPark = 0,

        /// <summary>Sleep at once: the least CPU time.</summary>
        Park = 1,

        /// <summary>Spin as long as no other thread needs the CPU: the lowest latency, for a core that has nothing else to do.</summary>
        Spin = 2,
    }

    /// <summary>Version 1: how a side finds out that its peer has ended.</summary>
    public enum Liveness
    {
        /// <summary>By its process id, as existing v1 programs do.</summary>
        Pid = 0,

        /// <summary>Of readers by their lock file; for containers that share /tmp.</summary>
        Lock = 1,

        /// <summary>Never; for containers that share nothing but /dev/shm.</summary>
        None = 2,
    }

    /// <summary>What kind of channel a client expects.</summary>
    public enum ChannelKind
    {
        /// <summary>The client finds out. An in-place channel comes first.</summary>
        Any = 0,

        /// <summary>Protocol version 2: the answer lies where the request was.</summary>
        InPlace = 1,

        /// <summary>Protocol version 1: the answer lies in a buffer of its own.</summary>
        TwoBuffers = 2,
    }

    /// <summary>The sizes of a channel's blocks.</summary>
    public class BufferConfig
    {
        private const int DefaultMetadata = 1024;

        private int _metadataSize;
        private long _payloadSize;

        /// <summary>
        /// <paramref name="metadataSize"/> bytes of metadata for each direction (a message needs 8 more than its
        /// length), and <paramref name="payloadSize"/> bytes of ring.
        /// </summary>
        /// <remarks>
        /// In place, a frame of n bytes takes n + 64 bytes of the ring, rounded up to 64. The ring should hold the
        /// frames in flight, and the responses that are held, at the same time.
        /// </remarks>
        /// <exception cref="ArgumentOutOfRangeException">A size is negative.</exception>
        public BufferConfig(int metadataSize = DefaultMetadata, int payloadSize = 1024 * 1024)
            : this(metadataSize, (long)payloadSize) { }

        /// <summary>The same for a ring of 2 GiB or more.</summary>
        /// <exception cref="ArgumentOutOfRangeException">A size is negative.</exception>
        public BufferConfig(int metadataSize, long payloadSize)
        {
            MetadataSize = metadataSize;
            LongPayloadSize = payloadSize;
        }

        /// <summary>
        /// In place: room for <paramref name="inFlight"/> frames of <paramref name="frameSize"/> bytes at a time, and 1 KiB of
        /// metadata. Requests that the server works on count, and responses that are held.
        /// </summary>
        /// <example>
        /// <code>
        /// var sizes = BufferConfig.ForFrames(1920 * 1080 * 3, 4);
        /// Console.WriteLine(sizes.PayloadSize == 4 * (1920 * 1080 * 3 + 64)); // True
        /// </code>
        /// </example>
        /// <exception cref="ArgumentOutOfRangeException">A number is negative.</exception>
        public static BufferConfig ForFrames(long frameSize, long inFlight)
        {
            UIntPtr frame = Interop.Size(frameSize, "frameSize");
            UIntPtr frames = Interop.Size(inFlight, "inFlight");
            // Beyond what memory can hold, a server refuses it.
            ulong payload = Math.Min((ulong)Native.zb_payload_size_for_frames(frame, frames), long.MaxValue);
            return new BufferConfig(DefaultMetadata, (long)payload);
        }

        /// <summary>Bytes of metadata for each direction.</summary>
        /// <exception cref="ArgumentOutOfRangeException">It is set to less than 0.</exception>
        public int MetadataSize
        {
            get => _metadataSize;
            set
            {
                Interop.Size(value, "metadataSize");
                _metadataSize = value;
            }
        }

        /// <summary>Bytes of the ring.</summary>
        /// <exception cref="ArgumentOutOfRangeException">It is set to less than 0.</exception>
        /// <exception cref="OverflowException">There are 2 GiB or more; see <see cref="LongPayloadSize"/>.</exception>
        public int PayloadSize
        {
            get => checked((int)_payloadSize);
            set => LongPayloadSize = value;
        }

        /// <summary>Bytes of the ring, of which there may be 2 GiB and more.</summary>
        /// <exception cref="ArgumentOutOfRangeException">It is set to less than 0.</exception>
        public long LongPayloadSize
        {
            get => _payloadSize;
            set
            {
                Interop.Size(value, "payloadSize");
                _payloadSize = value;
            }
        }
    }

    /// <summary>What servers of all kinds are made of. <c>null</c> in a property means its default.</summary>
    public abstract unsafe class ServerConfigBase
    {
        private protected ServerConfigBase() { }

        /// <summary>How the server waits for requests.</summary>
        public WaitStrategy Wait { get; set; }

        /// <summary>In place: how many threads run the handler. Default 1; with more, responses may overtake each other.</summary>
        public int? Workers { get; set; }

        /// <summary>In place: the server's metadata, which each client can read. Default none.</summary>
        public byte[]? Metadata { get; set; }

        /// <summary>How long <see cref="DuplexServer.Stop"/> waits for running handlers, and then for the client to read its responses. Default 2 s.</summary>
        public TimeSpan? StopTimeout { get; set; }

        /// <summary>What is told of handlers that fail, and why the server had to stop. Default: nobody.</summary>
        public ILogger? Logger { get; set; }

        /// <summary>Makes a native server of that name and kind, with these metadata.</summary>
        internal abstract int Create(byte* name, uint kind, byte* metadata, UIntPtr metadataLength, IntPtr* server);
    }

    /// <summary>What the server of a channel is made of. <c>null</c> in a property means its default.</summary>
    public sealed unsafe class ServerConfig : ServerConfigBase
    {
        /// <summary>The defaults with these sizes.</summary>
        /// <exception cref="ArgumentNullException"><paramref name="buffer"/> is null.</exception>
        public ServerConfig(BufferConfig buffer)
        {
            if (buffer == null)
            {
                throw new ArgumentNullException(nameof(buffer));
            }
            Buffer = buffer;
        }

        /// <summary>The sizes.</summary>
        public BufferConfig Buffer { get; private set; }

        /// <summary>
        /// Permission bits of the channel's objects, such as <c>0x1B0</c> for 0660. Default 0600: the same user only. They are
        /// those of <c>System.IO.UnixFileMode</c>, which .NET has from version 7 on: a cast makes one of the other.
        /// </summary>
        public int? Mode { get; set; }

        /// <summary>Two buffers: how the server finds out that a client has ended.</summary>
        public Liveness Liveness { get; set; }

        internal override int Create(byte* name, uint kind, byte* metadata, UIntPtr metadataLength, IntPtr* server)
        {
            var native = new Native.ServerConfig
            {
                Size = (UIntPtr)sizeof(Native.ServerConfig),
                Kind = kind,
                Mode = Interop.Positive(Mode, "Mode"),
                MetadataSize = (UIntPtr)(ulong)Buffer.MetadataSize,
                PayloadSize = (UIntPtr)(ulong)Buffer.LongPayloadSize,
                Wait = (uint)Wait,
                Workers = Interop.Positive(Workers, "Workers"),
                Metadata = metadata,
                MetadataLength = metadataLength,
                StopTimeout = Interop.NanosecondsOrDefault(StopTimeout),
                Liveness = (uint)Liveness,
            };
            return Native.zb_server_create(name, &native, server);
        }

        /// <summary>The defaults with these sizes.</summary>
        public static implicit operator ServerConfig(BufferConfig buffer) => new ServerConfig(buffer);
    }

    /// <summary>What a client is made of. <c>null</c> in a property means its default.</summary>
    public sealed class ClientConfig
    {
        private int _connections;

        /// <summary>The kind of channel.</summary>
        public ChannelKind Channel { get; set; }

        /// <summary>How the client waits for answers and for room.</summary>
        public WaitStrategy Wait { get; set; }

        /// <summary>The most requests in flight, held answers included. Default 4096.</summary>
        public int? MaxInFlight { get; set; }

        /// <summary>How long sending waits for room in the ring. Default 5 s.</summary>
        public TimeSpan? SendTimeout { get; set; }

        /// <summary>The client's metadata, which the handler finds in every frame. Default none.</summary>
        public byte[]? Metadata { get; set; }

        /// <summary>
        /// In place: whether <see cref="DuplexClient.Call"/> and <see cref="DuplexClient.CallAsync"/> connect again and
        /// send requests again that a server's end left not started.
        /// </summary>
        public bool ResendNotStarted { get; set; }

        /// <summary>
        /// 1 or more: the client mends itself, for programs that run for long. It has up to so many connections to different
        /// servers of a service, or one to a channel; <see cref="DuplexClient.Call"/> and <see cref="DuplexClient.CallAsync"/>
        /// send on the one with the fewest calls under way, send again, within their timeout, what a server's end left
        /// <see cref="RequestState.NotStarted"/>, and find new servers as they come. What is
        /// <see cref="RequestState.InDoubt"/> throws. Default 0: one connection, whose end the caller sees.
        /// </summary>
        /// <exception cref="ArgumentOutOfRangeException">It is set to less than 0.</exception>
        public int Connections
        {
            get => _connections;
            set
            {
                _connections = value >= 0 ? value
                    : throw new ArgumentOutOfRangeException(nameof(value), value, "connections are not negative");
            }
        }

        /// <summary>
        /// What is told that the client has connected, that a call has found no server, and that calls have one again. Default:
        /// nobody. What a client that mends itself could send again without its caller is not told.
        /// </summary>
        public ILogger? Logger { get; set; }

        /// <summary>Services: bytes of the ring. Default: what the server gives its clients.</summary>
        public long? RingSize { get; set; }

        /// <summary>Services: what the client says of itself, see <see cref="ClientIdentity.Label"/>; at most 192 bytes in UTF-8. Default: the program's name.</summary>
        public string? Label { get; set; }

        /// <summary>
        /// Services: the runtime directory, see <see cref="ServiceConfig.Directory"/>. Default: <c>$ZEROBUFFER_DIR</c>, else every place
        /// in which this user's services, or root's, may be.
        /// </summary>
        public string? Directory { get; set; }

        /// <summary>The user id that must own the channel's objects. Default: the process's effective user.</summary>
        public uint? Owner { get; set; }

        /// <summary>Two buffers: permission bits of the response buffer. Default 0600.</summary>
        public int? Mode { get; set; }

        /// <summary>Two buffers: how the client finds out that the server has ended.</summary>
        public Liveness Liveness { get; set; }

        /// <summary>Two buffers: the sizes of the response buffer, which the client makes. Default 4 KiB and 32 MiB. Responses of up to half of the ring, less 24 bytes, always fit, and so much may be in flight.</summary>
        public BufferConfig? ResponseBuffer { get; set; }
    }
}
