using Microsoft.Extensions.Logging;
using System;

namespace ZeroBuffer.DuplexChannel
{
    /// <summary>
    /// Works on a request, which is valid until it returns, and writes its response, if it has one, with
    /// <see cref="Writer.WriteFrame"/>, or with <see cref="Writer.GetFrameBuffer"/> and <see cref="Writer.CommitFrame"/>.
    /// </summary>
    public delegate void RequestHandler(Frame request, Writer responseWriter);

    /// <summary>Is told the client's metadata, which is valid until it returns; no bytes if the client has set none.</summary>
    public delegate void MetadataHandler(ReadOnlySpan<byte> metadata);

    /// <summary>On which threads a server works on requests.</summary>
    public enum ProcessingMode
    {
        /// <summary>One after the other, on a thread of the server's own.</summary>
        SingleThread,

        /// <summary>On threads of the pool, which no server does so far.</summary>
        ThreadPool,
    }

    /// <summary>A server of version 1, for one client.</summary>
    public interface IDuplexServer : IDisposable
    {
        /// <summary>Ends it; what a handler has begun is waited for, 5 s at most. Called again it does nothing.</summary>
        void Stop();

        /// <summary>What a handler has thrown, after which the server goes on; and why the server has ended by itself.</summary>
        event EventHandler<ErrorEventArgs> OnError;

        /// <summary>Whether it serves: false before it is started, and once it is stopped or its client has ended.</summary>
        bool IsRunning { get; }
    }

    /// <summary>A server of version 1 that leaves requests as they are, and writes responses of its own.</summary>
    public interface IImmutableDuplexServer : IDuplexServer
    {
        /// <summary>
        /// Makes the buffer for requests, waits for a client on a thread of its own, and serves it until it has ended.
        /// <paramref name="onInit"/> is told the client's metadata before the first request.
        /// </summary>
        /// <exception cref="InvalidOperationException">It runs.</exception>
        /// <exception cref="NotSupportedException">The mode is not <see cref="ProcessingMode.SingleThread"/>.</exception>
        /// <exception cref="ZeroBufferException">As <see cref="Reader(string, BufferConfig)"/>.</exception>
        /// <exception cref="ObjectDisposedException">It was disposed of.</exception>
        void Start(RequestHandler onFrame, MetadataHandler? onInit = null, ProcessingMode mode = ProcessingMode.SingleThread);

        /// <summary>As <see cref="DuplexChannelFactory.WaitExists"/>.</summary>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        static bool WaitExists(string name, TimeSpan timeout, ILogger? logger = null) =>
            DuplexChannelFactory.WaitExists(name, timeout, logger);
    }

    /// <summary>
    /// The client of version 1. One thread sends, and another one may receive meanwhile. Responses come in the order in which the
    /// server writes them; which request one belongs to is for the programs to know.
    /// </summary>
    public interface IDuplexClient : IDisposable
    {
        /// <summary>Sends a copy, and returns the request's number.</summary>
        /// <exception cref="BufferFullException">There was no room in time.</exception>
        /// <exception cref="FrameTooLargeException">There never is.</exception>
        /// <exception cref="ReaderDeadException">The server has ended.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of.</exception>
        ulong SendRequest(byte[] data);

        /// <summary>A request to be filled where the server will read it, and its number. Send it with <see cref="CommitRequest"/>.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="SendRequest"/>.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of.</exception>
        ulong AcquireRequestBuffer(int size, out Span<byte> buffer);

        /// <summary>Sends the request that was filled.</summary>
        /// <exception cref="ReaderDeadException">The server has ended.</exception>
        /// <exception cref="InvalidOperationException">None was begun.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of.</exception>
        void CommitRequest();

        /// <summary>The next response; <see cref="Frame.Invalid"/> if there is none within the timeout. Dispose of it.</summary>
        /// <exception cref="WriterDeadException">The server has ended, or has not attached in time.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of.</exception>
        Frame ReceiveResponse(TimeSpan timeout);

        /// <summary>Whether the server is there at this moment.</summary>
        bool IsServerConnected { get; }

        /// <summary>Describes the client's stream, once, before the first request.</summary>
        /// <exception cref="InvalidOperationException">It has been described.</exception>
        /// <exception cref="ArgumentException">The metadata does not fit.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of.</exception>
        void SetMetadata(ReadOnlySpan<byte> data);
    }

    /// <summary>Makes servers and clients of version 1.</summary>
    public interface IDuplexChannelFactory
    {
        /// <summary>
        /// A server, which is there for clients once it is started. <paramref name="timeout"/>, 5 s by default, is how long it
        /// waits for its client before it ends.
        /// </summary>
        /// <exception cref="ArgumentException">The name is null or empty, or there is no configuration.</exception>
        IImmutableDuplexServer CreateImmutableServer(string channelName, BufferConfig config, TimeSpan? timeout = null);

        /// <summary>Whether the channel's server is there, waiting for it until the timeout has passed.</summary>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        bool WaitExists(string channelName, TimeSpan timeout);

        /// <summary>A client of a server that is there.</summary>
        /// <exception cref="BufferNotFoundException">There is no server.</exception>
        /// <exception cref="WriterAlreadyConnectedException">The server has another client.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory for the responses.</exception>
        /// <exception cref="ArgumentException">The name is null or empty.</exception>
        IDuplexClient CreateClient(string channelName);
    }
}
